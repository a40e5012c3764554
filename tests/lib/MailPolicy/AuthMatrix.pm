package MailPolicy::AuthMatrix;

# Every mechanism at every provider that can serve it, in clear, with STARTTLS
# and implicit TLS: the servers, the users, and who is to be let in.
#
#     my $matrix = MailPolicy::AuthMatrix->new($t);
#     $t->conf($matrix->conf('further directives of mail{}'));
#     for my $cell ($matrix->cells()) {
#         my $c = $matrix->session($cell);
#         my $reply = $matrix->sasl($cell)->login($c);
#     }
#
# A cell has provider, mode (plain, starttls, tls), mechanism and user.  All
# providers know one user, by password and by token; those who know him by
# a certificate find it in it.  Of records there is one more user for each
# form of a password.

use strict;
use warnings;

use JSON::PP ();
use MIME::Base64 qw(encode_base64url);

use MailPolicy::Authority;
use MailPolicy::AuthService;
use MailPolicy::Dovecot;
use MailPolicy::Sasl;
use MailPolicy::Token;

use constant {
    USER     => 'alice@example.com',
    PASSWORD => 'correct "horse" & \\staple',
    TOKEN    => 'vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==',
    OTHER    => 'mallory@example.com',

    # of the http service: none may be longer
    LONG     => 'x' x 8192,
};

my @PASSWORD = qw(PLAIN LOGIN);
my @PROOF = qw(CRAM-MD5 SCRAM-SHA-256 SCRAM-SHA-256-PLUS);
my @TOKEN = qw(OAUTHBEARER XOAUTH2);
my @RECORDS = (@PASSWORD, @PROOF, 'EXTERNAL');

# what each can serve, and what it takes to have it: returns the word in
# "policy_auth", or nothing where it cannot be run here

my %PROVIDER = (
    file  => [ \&file, @RECORDS ],
    redis => [ \&redis, @RECORDS ],
    http  => [ \&http, @PASSWORD, 'CRAM-MD5', @TOKEN, 'EXTERNAL' ],
    https => [ \&https, @PASSWORD, 'CRAM-MD5', @TOKEN, 'EXTERNAL' ],
    jwt   => [ \&jwt, @TOKEN ],
    relay => [ \&relay, @PASSWORD, @TOKEN ],

    dovecot => [ \&dovecot, @PASSWORD, qw(CRAM-MD5 SCRAM-SHA-256), @TOKEN,
        'EXTERNAL' ],
);


# providers => [ ... ] for some of them only

sub new {
    my ($class, $t, %option) = @_;

    my $self = bless { t => $t, dir => $t->dir(), global => '', mail => '' },
        $class;
    my $ca = $self->{ca} = MailPolicy::Authority->new($t, 'ca');

    $self->{secrets} = [ PASSWORD, TOKEN ];
    $ca->certificate('edge', names => [ 'DNS:localhost', 'IP:127.0.0.1' ]);
    $ca->certificate('alice', names => [ 'email:' . USER ]);
    $ca->certificate('mallory', names => [ 'email:' . OTHER ]);

    for my $name (@{ $option{providers} // [ sort keys %PROVIDER ] }) {
        my ($start) = @{ $PROVIDER{$name} };
        my $value = $start->($self) // next;
        $self->{provider}{$name} = $value;
    }

    return $self;
}


sub providers { return sort keys %{ $_[0]{provider} } }
sub modes     { return qw(plain starttls tls) }
sub secrets   { return @{ $_[0]{secrets} } }


# what a provider serves: over what a channel binding or a certificate needs,
# there has to be TLS

sub mechanisms {
    my ($self, $provider, $mode) = @_;

    my (undef, @mechanisms) = @{ $PROVIDER{$provider} };

    return grep { $mode ne 'plain' || !/^EXTERNAL|-PLUS/ } @mechanisms;
}


sub cells {
    my ($self, @modes) = @_;

    my @cells;

    for my $provider ($self->providers()) {
        for my $mode (@modes ? @modes : $self->modes()) {
            push @cells, map { {
                provider => $provider, mode => $mode, mechanism => $_,
                user => $self->user($provider, $_),
                name => "$provider, $mode, $_",
            } } $self->mechanisms($provider, $mode);
        }
    }

    return @cells;
}


# a scripted relay has one secret for each user

sub user {
    my ($self, $provider, $mechanism) = @_;

    return $provider eq 'relay' && $mechanism =~ /OAUTH/
        ? 'token@example.com' : USER;
}


# the reply to somebody who is wrong: a relay has its own

sub invalid {
    my ($self, $cell) = @_;

    return '535 5.7.8 ' . ($cell->{provider} eq 'relay'
        ? 'Error: authentication failed'
        : 'Authentication credentials invalid');
}


sub port {
    my ($self, $cell) = @_;

    return $self->{t}->port("$cell->{provider}_$cell->{mode}");
}


# A configuration: what all servers have, and one for each provider and mode;
# and one that has nothing but XOAUTH2, for clients that would rather have
# OAUTHBEARER: PROVIDER_MODE_xoauth2.

sub conf {
    my ($self, $more) = @_;

    return "$self->{global}\nmail {\n" . $self->servers() . "$more}\n";
}


sub servers {
    my ($self) = @_;

    my %mode = (
        plain    => [ '', 'starttls off' ],
        starttls => [ '', 'starttls only' ],
        tls      => [ ' ssl', 'starttls off' ],
    );
    my $conf = <<'CONF';
    server_name             localhost;
    ssl_certificate         %%DIR%%/edge.crt;
    ssl_certificate_key     %%DIR%%/edge.key;
    ssl_protocols           TLSv1.2 TLSv1.3;
    ssl_client_certificate  %%DIR%%/ca.crt;
    ssl_verify_client       optional;

    policy                  on;
    policy_auth_plaintext   on;
CONF
    $conf .= $self->{mail};

    for my $provider ($self->providers()) {
        my (undef, @mechanisms) = @{ $PROVIDER{$provider} };

        for my $mode ($self->modes()) {
            $conf .= $self->server($provider, "${provider}_$mode",
                @{ $mode{$mode} }, @mechanisms);
            $conf .= $self->server($provider, "${provider}_${mode}_xoauth2",
                @{ $mode{$mode} }, 'XOAUTH2')
                if grep { $_ eq 'XOAUTH2' } @mechanisms;
        }
    }

    return $conf;
}


sub server {
    my ($self, $provider, $port, $ssl, $starttls, @mechanisms) = @_;

    my $methods = join(' ', map { lc } @mechanisms);
    my $own = $self->{own}{$provider} // '';

    return <<"CONF";

    server {
        listen               127.0.0.1:%%PORT_$port%%$ssl;
        protocol             smtp;
        $starttls;
        policy_auth          $self->{provider}{$provider};
        policy_auth_methods  $methods;
        $own
    }
CONF
}


# a client of a cell that has said EHLO, with a certificate where it needs one

sub session {
    my ($self, $cell, %option) = @_;

    my $who = $option{certificate}
        // ($cell->{mechanism} eq 'EXTERNAL' ? 'alice' : undef);
    my $c = $self->{t}->client($self->port($cell),
        ssl => { SSL_reuse_ctx => $self->context($who) },
        tls => $cell->{mode} eq 'tls');

    $c->greeting();
    $c->{offered} = $c->ehlo();

    if ($cell->{mode} eq 'starttls') {
        $c->starttls();
        $c->{offered} = $c->ehlo();
    }

    return $c;
}


# making one takes longer than a handshake

sub context {
    my ($self, $who) = @_;

    require IO::Socket::SSL;

    return $self->{context}{ $who // '' }
        //= IO::Socket::SSL::SSL_Context->new(SSL_verify_mode => 0, $who
            ? (SSL_cert_file => "$self->{dir}/$who.crt",
               SSL_key_file => "$self->{dir}/$who.key") : ());
}


# who has all that it takes, and who has not: of EXTERNAL, somebody who is to
# act for another one

sub sasl {
    my ($self, $cell, %more) = @_;

    return MailPolicy::Sasl->new($cell->{mechanism}, user => $cell->{user},
        password => PASSWORD, token => $self->token($cell), %more);
}


sub wrong {
    my ($self, $cell) = @_;

    return $self->sasl($cell, $cell->{mechanism} eq 'EXTERNAL'
        ? (authzid => OTHER)
        : (password => PASSWORD . '-not',
           token => 'not.' . $self->token($cell)));
}


# one has tokens of its own

sub token {
    my ($self, $cell) = @_;

    return $self->{token}{ $cell->{provider} } // TOKEN;
}


# the last step of who is wrong: a client with a token is told why, a server
# of SCRAM has nothing to prove

sub last_step {
    my ($self, $cell) = @_;

    return $cell->{mechanism} =~ /^SCRAM|OAUTH/ ? 2
        : $self->sasl($cell)->steps();
}


# providers


# users whose passwords have a form of their own; for SCRAM, and in secret

sub records {
    my ($self) = @_;

    my $secret = MailPolicy::Sasl::secret(PASSWORD, 'salt of a record', 4096);

    push @{ $self->{secrets} }, (split /,/, $secret)[2, 3];

    return (
        USER()                 => '{PLAIN}' . PASSWORD,
        'scram@example.com'    => $secret,
        'crypt@example.com'    => $self->{t}->crypt(PASSWORD,
            '$5$rounds=1000$matrix$'),
    );
}


sub file {
    my ($self) = @_;

    my %record = $self->records();

    return 'file:' . $self->{t}->write_file('users',
        join('', map { "$_:$record{$_}\n" } sort keys %record));
}


sub redis {
    my ($self) = @_;

    my %record = $self->records();
    my $redis = $self->{redis} = $self->{t}->run_redis();

    $redis->cmd('HSET', "mail:user:{$_}", 'password', $record{$_})
        for sort keys %record;

    $self->{mail} .= <<'CONF';
    policy_redis            redis://127.0.0.1:%%PORT_redis%% timeout=5s;
CONF

    return 'redis';
}


# what an auth_http service does

sub http {
    my ($self) = @_;

    # the test stops it
    push @{ $self->{t}{servers} }, $self->{service}
        //= MailPolicy::AuthService->new(dir => $self->{dir}, name => 'auth',
            port => $self->{t}->port('auth'), handler => \&verify);

    return 'http://127.0.0.1:%%PORT_auth%%/auth';
}


sub verify {
    my ($socket, $request) = @_;

    my %told = $request =~ /^([^:\r\n]+): ?(.*)\r$/mg;
    my ($user, $secret) = map { s/%([0-9A-F]{2})/chr hex $1/ger }
        @told{qw(Auth-User Auth-Pass)};
    my $method = $told{'Auth-Method'};
    my $known = $method eq 'plain' ? PASSWORD : TOKEN;

    $known = MailPolicy::Sasl->new('CRAM-MD5', user => USER,
        password => PASSWORD)->respond($told{'Auth-Salt'}) =~ s/.* //r
        if $method eq 'cram-md5';
    $known = $told{'Auth-SSL-Verify'} eq 'SUCCESS' ? '' : undef
        if $method eq 'external';

    $known = LONG if $method =~ /^xoauth2|oauthbearer/ && $secret eq LONG;

    my $good = $user eq USER && defined $known && $secret eq $known;

    MailPolicy::AuthService::reply($socket, $good
        ? ('Auth-Status' => 'OK')
        : ('Auth-Status' => 'Authentication credentials invalid',
           'Auth-Error-Code' => '535 5.7.8'));
    return 1;
}


# a set of keys, and a token that is signed by the one in it

sub jwt {
    my ($self) = @_;

    my $secret = 'a secret of 32 octets, not short';
    my $k = encode_base64url($secret);

    $self->{t}->write_file('keys.json',
        qq({"keys":[{"kty":"oct","alg":"HS256","k":"$k"}]}));
    $self->{token}{jwt} = MailPolicy::Token::hmac($secret, '{"alg":"HS256"}',
        JSON::PP::encode_json({ iss => 'https://login.example.com',
            aud => 'smtp', exp => time() + 3600, email => USER }));
    push @{ $self->{secrets} }, $secret, $k, $self->{token}{jwt};

    $self->{mail} .= <<'CONF';
    policy_auth_jwt         main keys=%%DIR%%/keys.json audience=smtp
                            issuer=https://login.example.com;
CONF

    return 'jwt:main';
}


# the same as http, behind TLS

sub https {
    my ($self) = @_;

    $self->http();
    $self->{global} .= <<'CONF';
http {
    # all headers are in its debug log
    error_log  %%DIR%%/front.log info;

    server {
        listen               127.0.0.1:%%PORT_https%% ssl;
        ssl_certificate      %%DIR%%/edge.crt;
        ssl_certificate_key  %%DIR%%/edge.key;

        location / {
            proxy_pass  http://127.0.0.1:%%PORT_auth%%;
        }
    }
}
CONF
    $self->{mail} .= <<'CONF';
    policy_auth_ssl_trusted_certificate  %%DIR%%/ca.crt;
    policy_auth_ssl_name                 localhost;
CONF

    return 'https://127.0.0.1:%%PORT_https%%/auth';
}


# in clear are its passwords, so that it can do all that it knows

sub dovecot {
    my ($self) = @_;

    my $dovecot = MailPolicy::Dovecot->new(dir => $self->{dir},
        users => { USER() => PASSWORD });

    push @{ $self->{t}{servers} }, $dovecot;
    $self->{token}{dovecot} = $dovecot->token(USER);
    push @{ $self->{secrets} }, $self->{token}{dovecot};

    return 'dovecot:unix:' . $dovecot->socket();
}


# the relay itself, whose messages are not those of the test's

sub relay {
    my ($self) = @_;

    $self->{relay} = $self->{t}->run_relay(name => 'knows',
        users => { USER() => PASSWORD, 'token@example.com' => TOKEN },
        extensions => [ qw(PIPELINING 8BITMIME ENHANCEDSTATUSCODES STARTTLS),
            'AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER' ],
        certificate => { cert => "$self->{dir}/edge.crt",
            key => "$self->{dir}/edge.key" });
    $self->{own}{relay} = 'proxy_pass 127.0.0.1:%%PORT_knows%%;'
        . ' proxy_starttls required; proxy_ssl_name localhost;'
        . ' proxy_ssl_trusted_certificate %%DIR%%/ca.crt;';

    return 'relay';
}


# what it took

sub received {
    my ($self) = @_;

    return $self->{relay} ? $self->{relay}->received() : ();
}


1;

package MailPolicy::Sasl;

# The client's side of SASL, for tests: what a client of each mechanism says,
# and whether a server of SCRAM had the right last word.
#
#     my $sasl = MailPolicy::Sasl->new('SCRAM-SHA-256',
#         user => 'alice@example.com', password => 'secret');
#     like($sasl->login($client), qr/^235 /);
#
# login() is all of AUTH, and returns its last reply.  It can be told
#
#     initial => 1        the initial response comes with AUTH
#     cancel  => n        "*" in the place of the n-th response
#     cut     => n        the connection is reset there: 'CUT'
#     leave   => n        reset as soon as the n-th response is out
#     stop    => n        nothing is done there: 'STOPPED'; go_on() may follow
#     say     => { n => octets }    another n-th response; it is encoded
#     name    => 'scram-sha-256'    of the mechanism, as AUTH has it
#
# where the first response is the one to the first 334; steps() is how many
# there are without "initial".  Afterwards
#
#     $sasl->challenges   what the server said, decoded
#     $sasl->proved       the server of SCRAM knows the password, too
#
# Further options of new: token (XOAUTH2, OAUTHBEARER), authzid; of SCRAM
# binding ("tls-exporter", "tls-server-end-point"), nonce, flag (the letter
# in the place of "n"), channel (octets in the place of what c= is to be),
# extension (a text behind the nonce, "m=x"), spoil => sub { message, step }
# which returns what is said instead.
#
# respond(challenge) is the mechanism alone; undef: the server has not spoken.

use strict;
use warnings;

use Digest::MD5 qw(md5);
use Digest::SHA qw(hmac_sha256 sha256);
use MIME::Base64 qw(decode_base64 encode_base64);

use MailPolicy::Relay::Sasl;
use MailPolicy::Secrets qw(remember);

# steps, what speaks, whether it has an initial response
my %MECHANISM = (
    'PLAIN'              => [ 1, \&plain, 1 ],
    'LOGIN'              => [ 2, \&user_password, 1 ],
    'CRAM-MD5'           => [ 1, \&cram_md5, 0 ],
    'SCRAM-SHA-256'      => [ 3, \&scram, 1 ],
    'SCRAM-SHA-256-PLUS' => [ 3, \&scram, 1 ],
    'XOAUTH2'            => [ 1, \&xoauth2, 1 ],
    'OAUTHBEARER'        => [ 1, \&oauthbearer, 1 ],
    'EXTERNAL'           => [ 1, \&external, 1 ],
);

# a hash takes its time, and is the same each time
my %SALTED;

my $remembered = 0;


sub new {
    my ($class, $mechanism, %option) = @_;

    die "no mechanism $mechanism\n" unless $MECHANISM{$mechanism};

    $option{binding} //= 'tls-exporter' if $mechanism =~ /-PLUS\z/;

    remember(@option{qw(password token)});

    return bless { mechanism => $mechanism, step => 0, challenges => [],
        %option }, $class;
}


sub names { return sort keys %MECHANISM }

sub steps       { return $MECHANISM{ $_[0]{mechanism} }[0] }
sub has_initial { return $MECHANISM{ $_[0]{mechanism} }[2] }
sub challenges  { return @{ $_[0]{challenges} } }
sub proved      { return $_[0]{proved} }


sub login {
    my ($self, $client, %option) = @_;

    @$self{qw(step challenges proved)} = (0, [], 0);
    $self->{client} = $client;

    return $self->dialogue(%option,
        reply => $client->cmd($self->command(@option{qw(name initial)})));
}


# what is left of a dialogue that was stopped

sub go_on {
    my ($self) = @_;

    my $client = $self->{client};
    my $response = $self->respond($self->{challenges}[-1]);

    return $self->dialogue(
        reply => $client->cmd(encode_base64($response, '')));
}


sub dialogue {
    my ($self, %option) = @_;

    my ($client, $reply) = ($self->{client}, $option{reply});

    for (my $n = 1; $reply =~ /^334(?: (.*))?\z/; $n++) {
        my $challenge = decode_base64($1 // '');
        push @{ $self->{challenges} }, $challenge;

        return 'STOPPED' if ($option{stop} // 0) == $n;
        return $client->cmd('*') if ($option{cancel} // 0) == $n;
        return cut($client) if ($option{cut} // 0) == $n;

        my $response = $option{say}{$n} // $self->respond($challenge);
        $client->send_raw(encode_base64($response, '') . "\r\n");

        return cut($client) if ($option{leave} // 0) == $n;
        $reply = $client->read_reply();
    }

    return $reply;
}


sub command {
    my ($self, $name, $initial) = @_;

    my $command = 'AUTH ' . ($name // $self->{mechanism});
    return $command unless $initial;

    my $response = encode_base64($self->respond(), '');
    return "$command " . ($response eq '' ? '=' : $response);
}


sub cut {
    my ($client) = @_;

    $client->reset();
    return 'CUT';
}


sub respond {
    my ($self, $challenge) = @_;

    my $step = $self->{step}++;
    my $said = $MECHANISM{ $self->{mechanism} }[1]->($self, $step,
        $challenge // '');

    return $self->{spoil} ? $self->{spoil}->($said, $step) : $said;
}


# mechanisms


sub plain {
    my ($self) = @_;

    return join("\0", $self->{authzid} // '', $self->{user},
        $self->{password});
}


sub user_password {
    my ($self, $step) = @_;

    return $step ? $self->{password} : $self->{user};
}


sub cram_md5 {
    my ($self, $step, $challenge) = @_;

    my $key = $self->{password};

    $key = md5($key) if length $key > 64;
    $key .= "\0" x (64 - length $key);

    my $inner = md5(($key ^ ("\x36" x 64)) . $challenge);

    return "$self->{user} "
        . unpack('H*', md5(($key ^ ("\x5c" x 64)) . $inner));
}


sub external { return $_[0]{authzid} // '' }


# a failure is answered, or the server would wait for ever

sub xoauth2 {
    my ($self, $step) = @_;

    return '' if $step;
    return "user=$self->{user}\1auth=Bearer $self->{token}\1\1";
}


sub oauthbearer {
    my ($self, $step) = @_;

    return "\1" if $step;

    my $user = defined $self->{user} ? 'a=' . saslname($self->{user}) : '';
    my $where = join('', map { "$_=$self->{$_}\1" }
        grep { defined $self->{$_} } qw(host port));

    return "n,$user,\1${where}auth=Bearer $self->{token}\1\1";
}


sub saslname {
    my ($name) = @_;

    $name =~ s/=/=3D/g;
    $name =~ s/,/=2C/g;
    return $name;
}


# SCRAM, RFC 5802 and 7677

sub scram {
    my ($self, $step, $challenge) = @_;

    return $self->scram_first() if $step == 0;
    return $self->scram_final($challenge) if $step == 1;

    $self->{proved} = 1
        if $challenge eq 'v=' . encode_base64($self->{signature}, '');
    return '';
}


sub scram_first {
    my ($self) = @_;

    my $flag = $self->{flag}
        // ($self->{binding} ? "p=$self->{binding}" : 'n');
    my $authzid = $self->{authzid} // '';

    $self->{gs2} = join(',', $flag,
        $authzid eq '' ? '' : 'a=' . saslname($authzid), '');
    $self->{given} = $self->{nonce} // new_nonce();
    $self->{bare} = join(',', 'n=' . saslname($self->{user}),
        "r=$self->{given}", $self->{extension} // ());

    return $self->{gs2} . $self->{bare};
}


sub new_nonce {
    return encode_base64(join('', map { chr int rand 256 } 1 .. 18), '');
}


sub scram_final {
    my ($self, $first) = @_;

    my ($nonce, $salt, $iterations)
        = $first =~ /^r=([^,]+),s=([^,]+),i=(\d+)\z/
        or return 'no message of a server';

    die "a nonce that is not ours: $nonce\n"
        if index($nonce, $self->{given}) != 0 || $nonce eq $self->{given};

    my $salted = $SALTED{"$salt $iterations $self->{password}"}
        //= MailPolicy::Relay::Sasl::hi($self->{password},
            decode_base64($salt), $iterations);

    my $channel = $self->{channel} // $self->{gs2} . $self->bound();
    my $without = 'c=' . encode_base64($channel, '') . ",r=$nonce";
    my $messages = "$self->{bare},$first,$without";
    my $key = hmac_sha256('Client Key', $salted);
    my $proof = $key ^ hmac_sha256($messages, sha256($key));

    $self->{signature} = hmac_sha256($messages,
        hmac_sha256('Server Key', $salted));

    # of the first ones: to look for hundreds of them takes minutes
    remember($proof, encode_base64($proof, '')) if $remembered++ < 3;

    return "$without,p=" . encode_base64($proof, '');
}


# what a server keeps of a password

sub secret {
    my ($password, $salt, $iterations) = @_;

    my $salted = MailPolicy::Relay::Sasl::hi($password, $salt, $iterations);

    return '{SCRAM-SHA-256}' . join(',', $iterations,
        map { encode_base64($_, '') } $salt,
            sha256(hmac_sha256('Client Key', $salted)),
            hmac_sha256('Server Key', $salted));
}


# the octets of a channel binding, of the client's end of TLS

sub bound {
    my ($self) = @_;

    return '' if !$self->{binding} || ($self->{flag} // 'p') !~ /^p/;

    my $ssl = $self->{client}->socket()->_get_ssl_object();

    return Net::SSLeay::export_keying_material($ssl, 32,
        'EXPORTER-Channel-Binding') if $self->{binding} eq 'tls-exporter';

    return end_point($ssl) if $self->{binding} eq 'tls-server-end-point';

    die "no channel binding $self->{binding}\n";
}


# RFC 5929, section 4.1: by the hash that the certificate is signed with

sub end_point {
    my ($ssl) = @_;

    my $certificate = Net::SSLeay::get_peer_certificate($ssl);
    my $algorithm = Net::SSLeay::OBJ_obj2txt(
        Net::SSLeay::P_X509_get_signature_alg($certificate));
    my ($hash) = $algorithm =~ /(sha\d+)/i;

    return Net::SSLeay::X509_digest($certificate,
        Net::SSLeay::EVP_get_digestbyname(lc $hash));
}


1;

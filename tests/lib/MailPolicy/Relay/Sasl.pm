package MailPolicy::Relay::Sasl;

# AUTH of a scripted relay: what a server of each mechanism does, for relays
# that know their users.
#
#     my $sasl = MailPolicy::Relay::Sasl->new('SCRAM-SHA-256',
#         users => { name => password }, scram => { ... });
#     my ($what, $text) = $sasl->take($response);
#
# what: "challenge" with its octets, "yes" with the user, "no".  scram, to
# misbehave: iterations, salt; nonce (the whole one), signature, first, final
# instead of what belongs there; early => 1 says yes without a signature.

use strict;
use warnings;

use Digest::MD5 qw(md5);
use Digest::SHA qw(hmac_sha256 sha256);
use MIME::Base64 qw(decode_base64 encode_base64);

my %STEPS = (
    'PLAIN'         => [ \&plain ],
    'LOGIN'         => [ \&ask_name, \&ask_password, \&login ],
    'CRAM-MD5'      => [ \&ask_cram_md5, \&cram_md5 ],
    'SCRAM-SHA-256' => [ \&scram_first, \&scram_final, \&scram_end ],
    'XOAUTH2'       => [ \&xoauth2, \&sorry ],
    'OAUTHBEARER'   => [ \&oauthbearer, \&sorry ],
);


sub new {
    my ($class, $mechanism, %option) = @_;

    my $steps = $STEPS{ uc $mechanism } or return undef;

    return bless { steps => [ @$steps ], scram => {}, %option }, $class;
}


# undef: no initial response

sub take {
    my ($self, $response) = @_;

    if (!defined $response && grep { $self->{steps}[0] == $_ }
        \&plain, \&scram_first, \&xoauth2, \&oauthbearer)
    {
        return ('challenge', '');
    }

    my $step = shift @{ $self->{steps} };
    return $step->($self, $response // '');
}


sub verdict {
    my ($self, $user, $password) = @_;

    my $known = $self->{users}{ $user // '' };

    return defined $known && defined $password && $known eq $password
        ? ('yes', $user) : 'no';
}


sub plain {
    my ($self, $response) = @_;

    my (undef, $user, $password) = split /\0/, $response, 3;
    return $self->verdict($user, $password);
}


# of a token that is wrong, the client hears why, and has to answer

sub xoauth2 {
    my ($self, $response) = @_;

    my ($user, $token)
        = $response =~ /^user=([^\cA]+)\cAauth=Bearer ([^\cA]+)\cA\cA\z/
        or return 'no';

    $self->{sorry} = '';
    return $self->token($user, $token);
}

sub oauthbearer {
    my ($self, $response) = @_;

    my ($user, $token)
        = $response =~ /^n,a=([^,]+),\cAauth=Bearer ([^\cA]+)\cA\cA\z/
        or return 'no';

    $user =~ s/=2C/,/g;
    $user =~ s/=3D/=/g;

    $self->{sorry} = "\1";
    return $self->token($user, $token);
}

sub token {
    my ($self, $user, $token) = @_;

    my @verdict = $self->verdict($user, $token);

    return $verdict[0] eq 'yes' ? @verdict
        : ('challenge', '{"status":"invalid_token"}');
}

sub sorry {
    my ($self, $response) = @_;

    $self->{fault} = 'not the answer to a failure'
        if $response ne $self->{sorry};
    return 'no';
}


sub ask_name { return ('challenge', 'Username:') }

sub ask_password {
    my ($self, $response) = @_;

    $self->{name} = $response;
    return ('challenge', 'Password:');
}

sub login { return $_[0]->verdict($_[0]{name}, $_[1]) }


sub ask_cram_md5 {
    my ($self) = @_;

    $self->{challenge} = '<1896.697170952@relay.example>';
    return ('challenge', $self->{challenge});
}

sub cram_md5 {
    my ($self, $response) = @_;

    my ($user, $digest) = $response =~ /^(.*) ([0-9a-f]{32})$/ or return 'no';
    my $key = $self->{users}{$user} // return 'no';

    $key = md5($key) if length $key > 64;
    $key .= "\0" x (64 - length $key);

    my $inner = md5(($key ^ ("\x36" x 64)) . $self->{challenge});
    my $want = unpack('H*', md5(($key ^ ("\x5c" x 64)) . $inner));

    return $digest eq $want ? ('yes', $user) : 'no';
}


sub scram_first {
    my ($self, $response) = @_;

    my ($bare) = $response =~ /^n,,(n=.*)$/ or return 'no';
    my ($name, $nonce) = $bare =~ /^n=([^,]*),r=([!-~]+)$/ or return 'no';

    $name =~ s/=2C/,/g;
    $name =~ s/=3D/=/g;

    my $scram = $self->{scram};

    @$self{qw(name bare)} = ($name, $bare);
    $self->{nonce} = $scram->{nonce} // "${nonce}relay";
    $self->{salt} = $scram->{salt} // 'salt of the relay';
    $self->{iterations} = $scram->{iterations} // 4096;
    $self->{first} = $scram->{first} // "r=$self->{nonce},s="
        . encode_base64($self->{salt}, '') . ",i=$self->{iterations}";

    return ('challenge', $self->{first});
}


sub scram_final {
    my ($self, $response) = @_;

    my ($without, $proof) = $response =~ /^(c=biws,r=[!-~]+),p=(.*)$/
        or return 'no';
    my $password = $self->{users}{ $self->{name} } // return 'no';
    my $salted = hi($password, $self->{salt}, $self->{iterations});

    my $key = hmac_sha256('Client Key', $salted);
    my $messages = "$self->{bare},$self->{first},$without";
    my $want = $key ^ hmac_sha256($messages, sha256($key));

    return 'no' if decode_base64($proof) ne $want
        || $without ne "c=biws,r=$self->{nonce}";
    return ('yes', $self->{name}) if $self->{scram}{early};

    my $signature = hmac_sha256($messages, hmac_sha256('Server Key', $salted));

    return ('challenge', $self->{scram}{final} // 'v='
        . encode_base64($self->{scram}{signature} // $signature, ''));
}


sub scram_end {
    my ($self, $response) = @_;

    return $response eq '' ? ('yes', $self->{name}) : 'no';
}


sub hi {
    my ($password, $salt, $iterations) = @_;

    my $u = hmac_sha256($salt . pack('N', 1), $password);
    my $result = $u;

    for (2 .. $iterations) {
        $u = hmac_sha256($u, $password);
        $result ^= $u;
    }

    return $result;
}


1;

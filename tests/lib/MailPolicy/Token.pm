package MailPolicy::Token;

# JSON Web Tokens of a program that nobody here wrote, PyJWT; and those that it
# would not make, signed with HMAC.
#
#     my $tokens = MailPolicy::Token->new();
#
#     my $jwk = $tokens->key('name', 'RSA');      # public, a hash
#     my $token = $tokens->sign('name', 'RS256', { iss => ... }, { kid => ... });
#     my $token = hmac($secret, '{"alg":"HS256"}', '{"iss":"..."}');

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256);
use Exporter qw(import);
use File::Basename qw(dirname);
use IPC::Open2 qw(open2);
use JSON::PP ();
use MIME::Base64 qw(encode_base64url);

our @EXPORT_OK = qw(available hmac);

# not another one that comes first in the path: it has the packages of Debian
my $PYTHON = '/usr/bin/python3';
my $JSON = JSON::PP->new()->canonical()->utf8()->allow_nonref();


sub available {
    return system("$PYTHON -c 'import jwt, cryptography' 2>/dev/null") == 0;
}


sub new {
    my ($class) = @_;

    my $self = bless {}, $class;
    my $script = dirname(__FILE__) . '/token.py';

    $self->{pid} = open2($self->{out}, $self->{in}, $PYTHON, '-I', $script);
    return $self;
}


sub key {
    my ($self, $name, $kind, $size) = @_;

    return $self->_call(call => 'key', name => $name, kind => $kind,
        $size ? (size => $size) : ());
}


sub pem {
    my ($self, $name) = @_;

    return $self->_call(call => 'pem', name => $name);
}


sub sign {
    my ($self, $key, $alg, $claims, $header) = @_;

    return $self->_call(call => 'sign', key => $key, alg => $alg,
        claims => $claims, header => $header // {});
}


sub hmac {
    my ($secret, $header, $claims) = @_;

    my $text = encode_base64url($header) . '.' . encode_base64url($claims);
    return "$text." . encode_base64url(hmac_sha256($text, $secret));
}


sub _call {
    my ($self, %request) = @_;

    my ($in, $out) = @$self{qw(in out)};

    print $in $JSON->encode(\%request), "\n";
    $in->flush();

    my $answer = <$out> // die "token.py has ended\n";
    return $JSON->decode($answer);
}


sub DESTROY {
    my ($self) = @_;

    close($self->{in});
    local $?;
    waitpid($self->{pid}, 0);
}


1;

#!/usr/bin/perl

# The client of SASL that other tests use says what the RFCs have as examples.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MIME::Base64 qw(decode_base64 encode_base64);
use Test::More;

use MailPolicy::Sasl;

# RFC 2195, section 2

my $cram = MailPolicy::Sasl->new('CRAM-MD5', user => 'tim',
    password => 'tanstaaftanstaaf');

is($cram->respond('<1896.697170952@postoffice.reston.mci.net>'),
    'tim b913a602c7eda7a495b4e6e7334d3890', 'CRAM-MD5');

# RFC 7677, section 3

my $scram = MailPolicy::Sasl->new('SCRAM-SHA-256', user => 'user',
    password => 'pencil', nonce => 'rOprNGfwEbeRWgbNEkqO');
my $nonce = 'rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0';
my $last = 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=';

is($scram->respond(), 'n,,n=user,r=rOprNGfwEbeRWgbNEkqO', 'client-first');
is($scram->respond("r=$nonce,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
    "c=biws,r=$nonce,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
    'client-final');
ok(!$scram->proved(), 'nothing is proved yet');
is($scram->respond($last), '', 'the last response');
ok($scram->proved(), 'the server has the password, too');

$scram->{proved} = 0;
$scram->respond($last =~ s/6/7/r);
ok(!$scram->proved(), 'and this one has not');

is(MailPolicy::Sasl::secret('pencil',
    decode_base64('W22ZaJ0SNY7soEsUEjb6gQ=='), 4096), '{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,'
    . 'WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,'
    . 'wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=', 'what a server keeps');

# RFC 4616, section 4; RFC 7628, section 4.1

is(MailPolicy::Sasl->new('PLAIN', user => 'Kurt', authzid => 'Ursel',
    password => 'xipj3plmq')->respond(), "Ursel\0Kurt\0xipj3plmq", 'PLAIN');

is(encode_base64(MailPolicy::Sasl->new('OAUTHBEARER',
    user => 'user@example.com', host => 'server.example.com', port => 143,
    token => 'vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==')->respond(), ''),
    'bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9M'
    . 'TQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZM'
    . 'jl0Q2c9PQEB', 'OAUTHBEARER');

done_testing();

package MailPolicy::Authority;

# A certificate authority in the test's directory, for certificates that are
# expired, revoked, or for somebody else.
#
#     my $ca = MailPolicy::Authority->new($t, 'ca');
#     my %files = $ca->certificate('relay', names => [ 'DNS:a', 'IP:127.0.0.1' ]);
#     $ca->certificate('old', expired => 1);
#     $ca->revoke('old');
#
# certificate() gives cert and key, files %%DIR%%/name.crt and .key; names are
# DNS:name.example by default.  The authority's own certificate is
# %%DIR%%/ca.crt, what it has revoked %%DIR%%/ca.crl.

use strict;
use warnings;

use MailPolicy::Process qw(spawn wait_exit);


sub new {
    my ($class, $t, $name) = @_;

    my $self = bless { t => $t, name => $name, dir => $t->dir() }, $class;
    my $file = "$self->{dir}/$name";

    $t->write_file("$file.index", '');
    $t->write_file("$file.serial", "01\n");
    $t->write_file("$file.crlnumber", "01\n");
    $t->write_file("$file.conf", <<"CONF");
[ca]
default_ca = this
[this]
database = $file.index
serial = $file.serial
crlnumber = $file.crlnumber
new_certs_dir = $self->{dir}
certificate = $file.crt
private_key = $file.key
default_md = sha256
default_days = 2
default_crl_days = 2
policy = any
unique_subject = no
[any]
commonName = supplied
CONF

    $self->openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt',
        'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj',
        "/CN=$name", '-keyout', "$file.key", '-out', "$file.crt");
    $self->list();

    return $self;
}


sub openssl {
    my ($self, @arguments) = @_;

    my $out = "$self->{dir}/$self->{name}.out";
    my $status = wait_exit(spawn($out, 'openssl', @arguments), 20);

    die "openssl @arguments: " . $self->{t}->read_file($out)
        if !defined $status || $status != 0;
}


sub certificate {
    my ($self, $name, %option) = @_;

    my $file = "$self->{dir}/$name";
    my @names = @{ $option{names} // [ "DNS:$name.example" ] };
    my @dates = $option{expired}
        ? qw(-startdate 20200101000000Z -enddate 20200201000000Z) : ();

    $self->openssl('req', '-new', '-newkey', 'ec', '-pkeyopt',
        'ec_paramgen_curve:P-256', '-nodes', '-subj', "/CN=$name",
        '-keyout', "$file.key", '-out', "$file.csr");

    $self->{t}->write_file("$file.ext", 'subjectAltName='
        . join(',', @names) . "\n");

    $self->openssl('ca', '-config', "$self->{dir}/$self->{name}.conf",
        '-batch', '-notext', '-in', "$file.csr", '-out', "$file.crt",
        '-extfile', "$file.ext", @dates);

    return (cert => "$file.crt", key => "$file.key");
}


sub revoke {
    my ($self, $name) = @_;

    $self->openssl('ca', '-config', "$self->{dir}/$self->{name}.conf",
        '-revoke', "$self->{dir}/$name.crt");
    $self->list();
}


sub list {
    my ($self) = @_;

    $self->openssl('ca', '-config', "$self->{dir}/$self->{name}.conf",
        '-gencrl', '-out', "$self->{dir}/$self->{name}.crl");
}


1;

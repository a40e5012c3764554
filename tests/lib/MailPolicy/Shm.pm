package MailPolicy::Shm;

# What is in shared memory, called as the module calls it.  The counters are
# the rule, see Shm.h; sources => [ ... ] of module/ are others.

use strict;
use warnings;

use Exporter qw(import);

use MailPolicy::Inside;

our @EXPORT_OK = qw(run);


# ends the test file

sub run {
    my ($name, %option) = @_;

    MailPolicy::Inside::run($name, libraries => [ '-lcrypto' ],
        sources => $option{sources} // [ 'store/ngx_mail_policy_shm*.c',
            map { "core/mpol_$_.c" } qw(counter local pack rate set) ]);
}


1;

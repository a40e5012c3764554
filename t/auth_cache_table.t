#!/usr/bin/perl

# AUTH-19: the table of passwords that were right, called as AUTH calls it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Shm qw(run);

run('AuthCache', sources => [ 'auth/ngx_mail_policy_auth_cache.c' ]);

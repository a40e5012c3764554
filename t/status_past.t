#!/usr/bin/perl

# policy_status: the rate now, the last hour and its minutes, of histories that
# are whole, young, full of holes, or of long ago.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Inside;

MailPolicy::Inside::run('SnapshotPast',
    sources => [ 'status/ngx_mail_policy_snapshot_counters.c' ]);

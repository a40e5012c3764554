#!/usr/bin/perl

# The counters that workers share: what is counted at the same time, what is
# left of workers that end, are killed and come again, and the room there is.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Inside;

MailPolicy::Inside::run('MetricsZone',
    sources => [ 'metrics/ngx_mail_policy_metrics*.c' ]);

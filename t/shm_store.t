#!/usr/bin/perl

# What is judged, charged, given back, learned and handed back in shared
# memory.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Shm qw(run);

run('ShmStore');

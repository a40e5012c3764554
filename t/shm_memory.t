#!/usr/bin/perl

# What gives way in shared memory, what a key takes, and what no order of
# calls breaks.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Shm qw(run);

run('ShmMemory');

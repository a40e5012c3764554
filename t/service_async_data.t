#!/usr/bin/perl

# The asynchronous matrix, where other policy servers are asked (A12): at DATA,
# and at the first of several chunks.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::AsyncService;

my $s = MailPolicy::AsyncService->new(qw(data chunk));

$s->matrix();
$s->ends();

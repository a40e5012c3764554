#!/usr/bin/perl

# The asynchronous matrix, where other policy servers are asked (A12): at the end
# of a message; or where it has to be looked up whether they are.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::AsyncService;

my $s = MailPolicy::AsyncService->new(qw(end if));

$s->matrix();
$s->ends();

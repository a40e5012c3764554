#!/usr/bin/perl

# Key sets and JSON Web Tokens: AUTH-16 to AUTH-18, and the vectors of RFC
# 7515, RFC 7520 and RFC 8037.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use MailPolicy::Inside qw(run);

run('Jwt', sources => [ 'auth/ngx_mail_policy_jwt*.c', 'core/mpol_jwt.c',
    'core/mpol_sasl.c' ], libraries => [ '-ljansson', '-lcrypto' ],
    feature => 'NGX_MAIL_POLICY_JANSSON');

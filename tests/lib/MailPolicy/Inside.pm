package MailPolicy::Inside;

# Functions of the module, called as the rest of it calls them: compiles a test
# in C with their sources to a library, which nginx loads and which prints the
# results.  So what is tested calls nginx' own functions.

use strict;
use warnings;

use Exporter qw(import);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;

our @EXPORT_OK = qw(run);

my $HEADERS = '/usr/share/nginx/src/src';


# run('name of the test', sources => [ 'room/pattern', ... ],
#     libraries => [ '-l...' ], feature => 'NGX_...'): ends the test file

sub run {
    my ($name, %option) = @_;

    my $here = dirname(__FILE__);
    my $top = "$here/../../..";

    plan skip_all => 'for the distribution\'s nginx'
        if defined $ENV{TEST_NGINX_BINARY};
    plan skip_all => 'no gcc' if system('gcc --version >/dev/null 2>&1');
    plan skip_all => 'needs nginx-dev and "./build.sh module"'
        unless -d "$HEADERS/core"
            && -e "$top/build/module/ngx_auto_config.h";
    plan skip_all => "built without $option{feature}"
        if $option{feature}
            && system('grep', '-q', $option{feature},
                "$top/build/module/ngx_auto_config.h");

    my $dir = tempdir('policy-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);
    my $library = "$dir/$name.so";

    my @sources = ("$here/$name.c",
        map { glob("$top/module/$_") } @{$option{sources}});

    my @include = map { "-I$_" } glob("$top/module/*"), "$top/tests/unit",
        "$top/build/module",
        map { "$HEADERS/$_" } qw(core event event/modules mail os/unix);

    system('gcc', '-O1', '-g', '-Wall', '-Wextra', '-Wno-unused-parameter',
        '-shared', '-fPIC', @include, '-o', $library, @sources,
        @{$option{libraries} // []}) == 0
        or BAIL_OUT("$name.c cannot be compiled");

    {
        local $ENV{LD_PRELOAD} = $library;
        system('nginx');
    }

    exit($? >> 8 || $? & 127);
}


1;

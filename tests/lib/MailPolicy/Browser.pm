package MailPolicy::Browser;

# A real Chromium without a window, by its debugging pipe: descriptors 3 and
# 4, messages in JSON that end with NUL.
#
#     my $browser = MailPolicy::Browser->new(dir => $t->dir());
#     my $page = $browser->page(width => 360, height => 740);
#
#     $page->open("http://127.0.0.1:8080/");
#     is($page->eval('document.title'), ...);
#     $page->screenshot('phone.png');
#     is_deeply([ $page->complaints() ], [], 'nothing on the console');
#     is_deeply([ $page->requests() ], [ ... ], 'asked for no more');
#
# A page has a profile of its own, with no cache and no cookies of others.

use strict;
use warnings;

use Fcntl qw(F_DUPFD);
use IO::Handle;
use JSON::PP ();
use MIME::Base64 qw(decode_base64);
use POSIX ();
use Time::HiRes qw(time);

use MailPolicy::Process qw(stop_process wait_exit);

my @PROGRAMS = qw(chromium chromium-browser google-chrome);


# dir: where its profile and what it says are kept

sub new {
    my ($class, %option) = @_;

    my $program = program()
        or die "there is no chromium: \"./build.sh test\" installs it, or "
            . "apt-get install chromium\n";

    my $self = bless {
        dir     => $option{dir},
        number  => 0,
        buffer  => '',
        pages   => {},
        json    => JSON::PP->new()->utf8()->canonical(),
    }, $class;

    mkdir "$self->{dir}/chromium" or die "$self->{dir}/chromium: $!\n";
    $self->_start($program);

    return $self;
}


sub program {
    for my $name (@PROGRAMS) {
        for my $dir (split /:/, $ENV{PATH}) {
            return "$dir/$name" if -x "$dir/$name";
        }
    }

    return;
}


sub _start {
    my ($self, $program) = @_;

    pipe(my $in, $self->{to}) or die "pipe: $!\n";
    pipe($self->{from}, my $out) or die "pipe: $!\n";

    my @command = ($program, '--headless', '--remote-debugging-pipe',
        '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run',
        '--disable-background-networking', '--disable-component-update',
        '--disable-extensions', '--disable-sync', '--mute-audio',
        '--hide-scrollbars', '--force-color-profile=srgb',
        '--font-render-hinting=none', "--crash-dumps-dir=$self->{dir}",
        "--user-data-dir=$self->{dir}/chromium",
        $> == 0 ? '--no-sandbox' : (), 'about:blank');

    $self->{pid} = fork();
    die "fork: $!\n" unless defined $self->{pid};

    if (!$self->{pid}) {
        # out of the way of 3 and 4 first
        my ($read, $write) = map { fcntl($_, F_DUPFD, 10) } $in, $out;

        MailPolicy::Process::redirect("$self->{dir}/chromium.log");
        POSIX::dup2($read, 3);
        POSIX::dup2($write, 4);
        POSIX::close($_) for 5 .. 63;
        $ENV{HOME} = $self->{dir};
        exec { $program } @command or POSIX::_exit(127);
    }

    $self->{to}->autoflush(1);
}


sub stop {
    my ($self) = @_;

    return if !$self->{pid};

    eval { $self->call('Browser.close') };
    close($self->{to});
    stop_process($self->{pid}, 'TERM', 5)
        if !defined wait_exit($self->{pid}, 5);
    delete $self->{pid};
}


# what the method returns; dies if it fails, or takes too long

sub call {
    my ($self, $method, $params, $session) = @_;

    my $id = ++$self->{number};
    my %message = (id => $id, method => $method, params => $params // {});

    $message{sessionId} = $session if defined $session;
    print { $self->{to} } $self->{json}->encode(\%message), "\0"
        or die "chromium is gone\n";

    my $answer;
    $self->wait_for(sub { $answer = delete $self->{answers}{$id} }, 20)
        or die "chromium did not answer to $method\n";

    die "$method: $answer->{error}{message}\n" if $answer->{error};
    return $answer->{result};
}


# reads on until the code returns true

sub wait_for {
    my ($self, $code, $timeout) = @_;

    my $end = time() + $timeout;

    while (1) {
        my $result = $code->();
        return $result if $result;

        my $left = $end - time();
        return if $left <= 0;
        $self->_read($left < 0.1 ? $left : 0.1);
    }
}


sub _read {
    my ($self, $timeout) = @_;

    my $vector = '';
    vec($vector, fileno($self->{from}), 1) = 1;
    return if select($vector, undef, undef, $timeout) <= 0;

    sysread($self->{from}, $self->{buffer}, 65536, length($self->{buffer}))
        or die "chromium is gone, see $self->{dir}/chromium.log\n";

    while ($self->{buffer} =~ s/^([^\0]*)\0//) {
        my $message = $self->{json}->decode($1);

        if (defined $message->{id}) {
            $self->{answers}{ $message->{id} } = $message;
        } elsif (my $page = $self->{pages}{ $message->{sessionId} // '' }) {
            $page->_event($message->{method}, $message->{params});
        }
    }
}


# width, height, scale (of a screen's dots), dark => 1, mobile => 1,
# scripts => 0

sub page {
    my ($self, %option) = @_;

    my $context = $self->call('Target.createBrowserContext')
        ->{browserContextId};
    my $target = $self->call('Target.createTarget',
        { url => 'about:blank', browserContextId => $context })->{targetId};
    my $session = $self->call('Target.attachToTarget',
        { targetId => $target, flatten => JSON::PP::true })->{sessionId};

    my $page = MailPolicy::Browser::Page->new(browser => $self,
        session => $session, target => $target, %option);

    $self->{pages}{$session} = $page;
    $page->_set_up();
    return $page;
}


sub DESTROY {
    my ($self) = @_;

    local ($?, $@);
    kill('KILL', $self->{pid}) if $self->{pid};
}


package MailPolicy::Browser::Page;

use strict;
use warnings;


sub new {
    my ($class, %option) = @_;

    return bless {
        width => 1280, height => 900, scale => 1, scripts => 1,
        %option,
        complaints => [], requests => [], loads => 0,
    }, $class;
}


sub call {
    my ($self, $method, $params) = @_;

    return $self->{browser}->call($method, $params, $self->{session});
}


sub _set_up {
    my ($self) = @_;

    $self->call("$_.enable") for qw(Page Runtime Log Network Audits);
    $self->call('Emulation.setDeviceMetricsOverride', {
        width => 0 + $self->{width}, height => 0 + $self->{height},
        deviceScaleFactor => 0 + $self->{scale},
        mobile => $self->{mobile} ? JSON::PP::true : JSON::PP::false });
    $self->call('Emulation.setEmulatedMedia', { features => [ {
        name => 'prefers-color-scheme',
        value => $self->{dark} ? 'dark' : 'light' } ] });
    $self->call('Emulation.setScriptExecutionDisabled',
        { value => JSON::PP::true }) unless $self->{scripts};
}


sub _event {
    my ($self, $name, $params) = @_;

    if ($name eq 'Page.loadEventFired') {
        $self->{loads}++;

    } elsif ($name eq 'Network.requestWillBeSent') {
        push @{ $self->{requests} }, $params->{request}{url};

    } elsif ($name eq 'Log.entryAdded') {
        push @{ $self->{complaints} }, $params->{entry}{text};

    } elsif ($name eq 'Runtime.exceptionThrown') {
        my $details = $params->{exceptionDetails};
        push @{ $self->{complaints} },
            $details->{exception}{description} // $details->{text};

    } elsif ($name eq 'Runtime.consoleAPICalled') {
        push @{ $self->{complaints} }, 'console: ' . join(' ',
            map { $_->{value} // $_->{description} // '' }
                @{ $params->{args} });

    } elsif ($name eq 'Audits.issueAdded') {
        push @{ $self->{complaints} }, $params->{issue}{code};

    } elsif ($name eq 'Page.javascriptDialogOpening') {
        push @{ $self->{complaints} }, "dialog: $params->{message}";
    }
}


# what it has to say of itself, and the URLs that it asked for, so far

sub complaints { return @{ $_[0]{complaints} } }
sub requests   { return @{ $_[0]{requests} } }
sub loads      { return $_[0]{loads} }


sub open {
    my ($self, $url) = @_;

    my $loads = $self->{loads};
    my $answer = $self->call('Page.navigate', { url => $url });

    die "$url: $answer->{errorText}\n" if $answer->{errorText};
    $self->{browser}->wait_for(sub { $self->{loads} > $loads }, 20)
        or die "$url: not loaded\n";
}


# the value of an expression in the page, also where its scripts are off

sub eval {
    my ($self, $expression) = @_;

    my $answer = $self->call('Runtime.evaluate',
        { expression => $expression, returnByValue => JSON::PP::true,
          awaitPromise => JSON::PP::true });

    die "$expression: " . ($answer->{exceptionDetails}{exception}{description}
        // $answer->{exceptionDetails}{text}) . "\n"
        if $answer->{exceptionDetails};
    return $answer->{result}{value};
}


sub wait_for {
    my ($self, $expression, $timeout) = @_;

    return $self->{browser}->wait_for(sub { $self->eval($expression) },
        $timeout // 10);
}


# of the whole page, into a file

sub screenshot {
    my ($self, $file) = @_;

    my $data = $self->call('Page.captureScreenshot',
        { format => 'png', captureBeyondViewport => JSON::PP::true })->{data};

    CORE::open(my $fh, '>:raw', $file) or die "$file: $!\n";
    print $fh MIME::Base64::decode_base64($data);
    close($fh) or die "$file: $!\n";
}


1;

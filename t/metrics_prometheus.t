#!/usr/bin/perl

# policy_status prometheus: the text is what promtool and a real Prometheus
# read, its numbers are those of the JSON, and alerts and dashboard of
# policies/ ask for what is there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../tests/lib";

use JSON::PP ();
use Test::More;

use MailPolicy;
use MailPolicy::Prometheus qw(read_metrics);

plan(skip_all => MailPolicy::Prometheus::missing())
    if MailPolicy::Prometheus::missing();

my $t = MailPolicy->new();
my $redis = $t->run_redis();
my $relay = $t->run_relay(name => 'relay',
    rcpt => { match => qr/nobody@/, action => '550 5.1.1 who is that' });
my $policies = $t->root() . '/policies';

$t->write_file($t->dir() . '/users',
    'alice:' . $t->crypt('canary-right', '$6$rounds=1000$salt$') . "\n");

# whatever the name of a group is, its label is one that can be read
my $NAME = '"out \"of\" \\here ä' . "\xff" . '"';

$t->conf(<<'EOT' =~ s/%%NAME%%/$NAME/gr);
worker_processes  2;
thread_pool       default threads=2;

mail {
    server_name   edge.example.com;
    policy_redis  redis://127.0.0.1:%%PORT_redis%%;

    upstream %%NAME%% {
        server  127.0.0.1:%%PORT_relay%%;
        server  127.0.0.1:%%PORT_relay%%;
        server  127.0.0.1:%%PORT_gone%%   backup;
        server  127.0.0.1:%%PORT_down%%   down;
    }

    policy                 on;
    policy_auth_plaintext  on;
    policy_auth_delay      0;
    proxy_pass             %%NAME%%;

    policy_limit  few    key=$client_net  messages=5/1h;
    policy_limit  many   key=$sender      messages=1000/1h;
    policy_limit  other  key=$sender      messages=3/1h on_exceed=report;

    server {
        listen       127.0.0.1:%%PORT_smtp%%;
        protocol     smtp;
        policy_auth  off;
    }

    server {
        listen       127.0.0.1:%%PORT_submission%%;
        protocol     smtp;
        policy_auth  file:users;
    }
}

http {
    charset  utf-8;

    server {
        listen  127.0.0.1:%%PORT_http%%;

        location /          { policy_status; }
        location = /metrics { policy_status prometheus; }
    }
}
EOT

$t->run_nginx();


# alerts and dashboard

my ($status, $output) = promtool('check', 'rules', "$policies/prometheus/alerts.yml");
is($status, 0, 'promtool check rules') or diag($output);

($status, $output) = promtool('test', 'rules', "$policies/prometheus/alerts_test.yml");
is($status, 0, 'promtool test rules') or diag($output);


# traffic, while Prometheus looks on; it has seen the counters at 0

my $prometheus = MailPolicy::Prometheus->new($t, port => 'http',
    path => '/metrics', rules => "$policies/prometheus/alerts.yml");

ok($t->wait_for(sub {
    ($prometheus->query('nginx_mail_policy_sessions_total')
        ->{nginx_mail_policy_sessions_total} // '') eq '0';
}, 10), 'Prometheus scrapes');

my $before = read_metrics($t->http_get('http', '/metrics'));
my $c = $t->session('smtp');

for my $n (1 .. 7) {
    $c->cmd('MAIL FROM:<a@example.com>');
    $c->cmd('RCPT TO:<nobody@example.net>');
    $c->cmd('RCPT TO:<bob@example.net>');
    $c->cmd('DATA') =~ /^354/ and $c->cmd("Subject: $n\r\n\r\nx\r\n.");
    $c->cmd('RSET');
}

$c->quit();

for my $password (qw(canary-wrong canary-wrong canary-right)) {
    $c = $t->session('submission');
    $c->auth_plain('alice', $password);
    $c->quit();
}

# what clients choose is a value of nothing

$c = $t->session('smtp', helo => '[IPv6:2001:db8::1]');
$c->cmd('MAIL FROM:<"x\"} 1"@example.com>');
$c->cmd('RCPT TO:<"y{z=\"1\"}"@example.net>');
$c->cmd('JUNK} 1');
$c->quit();

$c = $t->session('submission');
$c->cmd('AUTH X"}-1');
$c->auth_plain('mallory"} 1', 'canary-wrong');
$c->quit();

ok($t->wait_for(sub { json()->{sessions}{active} == 0 }), 'sessions end');

my $json = json();
my $text = $t->http_get('http', '/metrics');
my $metrics = read_metrics($text);


# the text

($status, $output) = promtool_reads($text, 'check', 'metrics');
is($status, 0, 'promtool check metrics') or diag($output);
is($output, '', '... has nothing to say');

is(join(' ', sort keys %$metrics), join(' ', sort keys %$before),
    'OUT-8 names and labels are there from the start, and no others come');

like($t->http_get('http', '/metrics', '-I'),
    qr/^Content-Type:\ text\/plain;\ version=0\.0\.4;\ charset=utf-8\r$/mx,
    'the type, once with its charset');


# its numbers are those of the JSON

my %number = numbers($json);

cmp_ok(scalar(keys %number), '>', 90, 'many numbers');

for my $name (sort keys %number) {
    my $key = "nginx_mail_policy_$name";
    my $is = delete $metrics->{$key};

    $is == $number{$name} or is($is, $number{$name}, $key) if defined $is;
    ok(0, "$key is there") unless defined $is;
}

my @rest = grep { !/^nginx_mail_policy_(?:info|start_time_seconds
    |store_request_duration_seconds_sum|(?:upstream_peer|service)_duration
    |store_up|store_workers)/x }
    sort keys %$metrics;
is("@rest", '', 'and no other counters');

is($json->{transactions}{accepted}, 5, 'transactions that were accepted');
is($json->{recipients}{accepted}, 5, 'recipients');
is($json->{auth}{PLAIN}{failure}, 3, 'logins that failed');
is($json->{auth}{PLAIN}{success}, 1, '... and did not');
is(scalar(@{ $json->{limits} }), 3, 'limits');
is($json->{limits}[0]{defer}, 3, 'what a limit did');
is((grep { $_->{name} eq 'other' } @{ $json->{limits} })[0]{would_reject}, 4,
    'what one would have done');


# what Prometheus has

my $now = read_metrics($t->http_get('http', '/metrics'));

for my $name (qw(sessions_total transactions_total recipients_total auth_total
    limit_decisions_total refusals_total upstream_peer_replies_total
    upstream_peer_up store_request_duration_seconds_count log_lines_total))
{
    my $key = "nginx_mail_policy_$name";
    my %here = map { ($_ => $now->{$_}) } grep { /^\Q$key\E(?:\{|\z)/ }
        keys %$now;
    my $there;

    $t->wait_for(sub {
        $there = $prometheus->query($key);
        return "@{[ map { $_, $there->{$_} } sort keys %$there ]}"
            eq "@{[ map { $_, $here{$_} } sort keys %here ]}";
    });

    is_deeply($there, \%here, "Prometheus has $name");
}

is($prometheus->query(
    'sum(increase(nginx_mail_policy_transactions_total[1m])) > bool 0')->{''},
    1, 'a rate can be had');

my ($target) = @{ $prometheus->api('targets')->{activeTargets} };
is($target->{health}, 'up', 'the target is up');
is($target->{lastError}, '', '... without errors');

my @rules = map { @{ $_->{rules} } } @{ $prometheus->api('rules')->{groups} };
cmp_ok(scalar(@rules), '>=', 10, 'alerts');
is(join(' ', map { $_->{name} } grep { $_->{health} ne 'ok' } @rules), '',
    '... that can be evaluated');
is(join(' ', map { $_->{name} } grep { $_->{state} eq 'firing' } @rules), '',
    '... and are quiet');


# the dashboard

my $dashboard = JSON::PP::decode_json(
    $t->read_file("$policies/grafana/dashboard.json"));
my @panels = @{ $dashboard->{panels} };
my @queries = map { $_->{expr} }
    (map { @{ $_->{targets} // [] } } @panels),
    @{ $dashboard->{annotations}{list} };

cmp_ok(scalar(@queries), '>', 30, 'queries of the dashboard');

my %id = map { ($_->{id} => 1) } @panels;
is(scalar(keys %id), scalar(@panels), 'each panel has an id of its own');

is(join(' ', map { $_->{title} }
    grep { ($_->{datasource}{uid} // '') ne '${datasource}' }
    grep { $_->{type} ne 'row' } @panels), '',
    'and the data source that is chosen');

for my $query (@queries) {
    my $expr = $query =~ s/\$__rate_interval/1m/gr
        =~ s/"\$(?:job|instance)"/".*"/gr;

    ok(eval { $prometheus->query($expr); 1 }, "is a query: $query")
        or diag($@);
}


# nothing is asked for that is not there

my %family = map { (s/\{.*//r => 1) } keys %$now;
my $asked = join("\n", $t->read_file("$policies/prometheus/alerts.yml"),
    @queries, map { $_->{definition} // () }
        @{ $dashboard->{templating}{list} });
my %asked = map { ($_ => 1) } $asked =~ /\b(nginx_mail_policy_\w+)/g;

cmp_ok(scalar(keys %asked), '>', 25, 'metrics are asked for');
is(join(' ', grep { !$family{$_} && !/_service_/ } sort keys %asked), '',
    'and all are there');

$prometheus->stop();
$t->done();


sub json { return JSON::PP->new()->utf8()->decode($t->http_get('http', '/')) }


# promtool's status and all that it says

sub promtool { return promtool_reads('', @_) }

sub promtool_reads {
    my ($input, @arguments) = @_;

    my $file = $t->dir() . '/promtool.in';
    $t->write_file($file, $input);

    open(my $fh, '-|', 'sh', '-c', 'exec promtool "$@" <"$0" 2>&1', $file,
        @arguments) or die "promtool: $!\n";

    local $/;
    my $output = <$fh> // '';
    close($fh);

    return ($?, $output);
}


# the numbers of the JSON by the names that the metrics have

sub numbers {
    my ($json) = @_;

    my %n = (
        sessions_active => $json->{sessions}{active},
        sessions_total => $json->{sessions}{total},
        message_bytes_total => $json->{bytes}{messages},
        client_received_bytes_total => $json->{bytes}{received},
        client_sent_bytes_total => $json->{bytes}{sent},
        log_lines_total => $json->{log}{lines},
        log_lines_lost_total => $json->{log}{lost},
        events_lost_total => $json->{log}{events_lost},
        kept_connections => $json->{kept_connections},
        store_errors_total => $json->{store}{errors},
        store_request_duration_seconds_count => $json->{store}{answers},
        'store_request_duration_seconds_bucket{le="+Inf"}'
            => $json->{store}{answers},
    );

    by(\%n, 'transactions_total', outcome => $json->{transactions});
    by(\%n, 'recipients_total', result => $json->{recipients});
    by(\%n, 'postfix_answers_total', answer => $json->{postfix});

    for my $bucket (@{ $json->{store}{histogram} }) {
        my $le = $bucket->{le} == 1 ? '1.0' : 0 + $bucket->{le};
        $n{qq(store_request_duration_seconds_bucket{le="$le"})}
            = $bucket->{count};
    }

    for my $command (keys %{ $json->{refusals} }) {
        my ($deferred, $rejected)
            = @{ $json->{refusals}{$command} }{qw(deferred rejected)};

        $n{qq(refusals_total{class="4xx",command="$command"})} = $deferred;
        $n{qq(refusals_total{class="5xx",command="$command"})} = $rejected;
    }

    for my $mechanism (keys %{ $json->{auth} }) {
        by(\%n, 'auth_total', qq(mechanism="$mechanism",result)
            => $json->{auth}{$mechanism});
    }

    for my $limit (@{ $json->{limits} }) {
        my %result = %$limit;
        my $name = delete $result{name};

        $n{qq(limit_near_total{limit="$name"})} = delete $result{near};
        by(\%n, 'limit_decisions_total', qq(limit="$name",result) => \%result);
    }

    for my $upstream (@{ $json->{upstreams} }) {
        peer(\%n, label($upstream->{name}), $_) for @{ $upstream->{peers} };
    }

    return %n;
}


sub by {
    my ($n, $family, $label, $of) = @_;

    $n->{qq($family\{$label="$_"})} = $of->{$_} for keys %$of;
}


sub peer {
    my ($n, $upstream, $peer) = @_;

    my ($address, $server) = @$peer{qw(address server)};
    my $labels = qq(address="$address");
    my $name = qq(upstream="$upstream");
    my %replies = ('2xx' => 'accepted', '4xx' => 'deferred',
        '5xx' => 'rejected');

    $n->{qq(upstream_peer_$_\_total{$labels,$name})} = $peer->{$_}
        for qw(tries failures connects reused);
    $n->{qq(upstream_peer_replies_total{$labels,class="$_",$name})}
        = $peer->{ $replies{$_} } for keys %replies;

    $labels .= qq(,server="$server",$name);
    $n->{"upstream_peer_active_connections{$labels}"} = $peer->{active};
    $n->{"upstream_peer_up{$labels}"} = 1 if $peer->{state} ne 'down';
}


# what is no text is shown as \xXX

sub label {
    my ($name) = @_;

    my $octets = $name;
    utf8::encode($octets);
    return $octets =~ s/\xc3\xbf/\\xFF/r;
}

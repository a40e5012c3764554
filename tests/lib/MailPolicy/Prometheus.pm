package MailPolicy::Prometheus;

# A real Prometheus that scrapes nginx each second, and what it says; and its
# text format, read.
#
#     plan(skip_all => MailPolicy::Prometheus::missing())
#         if MailPolicy::Prometheus::missing();
#     my $prometheus = MailPolicy::Prometheus->new($t, port => 'http',
#         path => '/metrics', rules => '/path/to/alerts.yml');
#     my $samples = $prometheus->query('up');     # { labels => value }

use strict;
use warnings;

use Exporter qw(import);
use JSON::PP ();

use MailPolicy::Process qw(spawn stop_process);

our @EXPORT_OK = qw(read_metrics);


# why there cannot be one; empty if there can

sub missing {
    for my $program (qw(prometheus promtool)) {
        return 'the package prometheus is not installed'
            unless grep { -x "$_/$program" } split /:/, $ENV{PATH};
    }

    return '';
}


sub new {
    my ($class, $t, %option) = @_;

    my $self = bless { t => $t, name => 'prometheus', %option }, $class;

    $self->{log} = $t->dir() . '/prometheus.log';

    my $target = '127.0.0.1:' . $t->port($option{port});
    my $conf = $t->dir() . '/prometheus.yml';

    $t->write_file($conf, <<"EOT");
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
rule_files: [ "$option{rules}" ]
scrape_configs:
  - job_name: mail
    metrics_path: $option{path}
    static_configs: [ { targets: [ "$target" ] } ]
EOT

    push @{ $t->{servers} }, $self;

    $self->{pid} = spawn($self->{log}, 'prometheus', "--config.file=$conf",
        '--storage.tsdb.path=' . $t->dir() . '/prometheus',
        '--web.listen-address=127.0.0.1:' . $t->port($self->{name}));

    die 'Prometheus does not start: ' . $t->read_file($self->{log})
        unless $t->wait_for(sub {
            $t->http_get($self->{name}, '/-/ready') =~ /ready/i;
        }, 10);

    return $self;
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} or return;
    stop_process($pid, 'TERM', 5);
}


# the data of an answer of its API

sub api {
    my ($self, $path, @options) = @_;

    my $text = $self->{t}->http_get($self->{name}, "/api/v1/$path", @options);
    my $answer = eval { JSON::PP::decode_json($text) };

    die "/api/v1/$path: $text\n"
        unless $answer && $answer->{status} eq 'success';
    return $answer->{data};
}


# { labels => value }, labels as read_metrics has them, without job, instance

sub query {
    my ($self, $expr) = @_;

    my $data = $self->api('query', '-G', '--data-urlencode', "query=$expr");
    my %sample;

    for my $result (@{ $data->{result} }) {
        my $metric = $result->{metric};
        my $name = delete $metric->{__name__} // '';

        delete @$metric{qw(job instance)};
        utf8::encode($_) for values %$metric;
        $sample{ $name . _labels($metric) } = $result->{value}[1];
    }

    return \%sample;
}


# { 'name{a="x",b="y"}' => value } of a text, labels in the order of their
# names; dies of a line that is none, and of one that comes twice

sub read_metrics {
    my ($text) = @_;

    my %sample;

    for my $line (grep { !/^#/ } split /\n/, $text) {
        my ($name, $labels, $value) = $line =~ /\A([a-z_]+)
            (?:\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)+)\})?\ ([0-9.]+)\z/x
            or die "what is that: $line\n";

        my %label = ($labels // '') =~ /([a-z]+)="((?:[^"\\]|\\.)*)"/g;

        s/\\(.)/$1/g for values %label;

        my $key = $name . _labels(\%label);
        die "twice: $line\n" if exists $sample{$key};
        $sample{$key} = $value;
    }

    return \%sample;
}


sub _labels {
    my ($label) = @_;

    return '' unless %$label;
    return '{' . join(',', map { qq($_="$label->{$_}") } sort keys %$label)
        . '}';
}


1;

<?php

// Tests of Pusher's HTTP API from PHP: php tests/php/api_test.php BINARY
//
// Requests are signed with hash_hmac, as Pusher's server library for PHP documents it, and sent
// with PHP's streams. A subscriber on a plain socket receives the published events. No library is
// used. Prints one line for each test; the exit code is 1 if a test fails.

declare(strict_types=1);

const APP = '1';
const KEY = 'app-key';
const SECRET = 'app-secret';
const WAIT_S = 20;

set_error_handler(function (int $kind, string $text, string $file, int $line): bool {
    throw new ErrorException($text, 0, $kind, $file, $line);
}, E_ALL & ~E_WARNING);

function same(mixed $expected, mixed $found, string $what): void
{
    if ($expected !== $found) {
        $texts = array_map(fn ($value) => json_encode($value), [$expected, $found]);
        throw new RuntimeException("$what: expected $texts[0], found $texts[1]");
    }
}

/** A polycast process with its demo application, on a port that the kernel chooses. */
final class Server
{
    /** @var resource */
    private $process;
    public string $address;

    public function __construct(string $binary)
    {
        $command = [$binary, '--listen', '127.0.0.1:0', '--threads', '2', '--no-pin', '--log-level', 'warn'];
        $files = [['file', '/dev/null', 'r'], ['pipe', 'w'], STDERR];
        $this->process = proc_open($command, $files, $pipes);
        stream_set_timeout($pipes[1], WAIT_S);
        $line = (string) fgets($pipes[1]);
        if (!preg_match('~http://(\S+:\d+)~', $line, $found)) {
            throw new RuntimeException("the server did not start: $line");
        }
        $this->address = $found[1];
    }

    /** Sends SIGTERM and returns the exit code. Throws if the server does not end within WAIT_S. */
    public function stop(): int
    {
        proc_terminate($this->process);
        $end = microtime(true) + WAIT_S;
        while (($status = proc_get_status($this->process))['running']) {
            if (microtime(true) > $end) {
                proc_terminate($this->process, 9);
                throw new RuntimeException('the server did not end');
            }
            usleep(10_000);
        }
        return $status['exitcode'];
    }

    /**
     * Sends a signed request and returns [status, decoded body]. `changes` are applied to the query
     * after it is signed.
     *
     * @param array<string, string> $query
     * @param array<string, string> $changes
     */
    public function call(
        string $method,
        string $path,
        ?array $body = null,
        array $query = [],
        array $changes = [],
    ): array {
        $path = '/apps/' . APP . $path;
        $text = $body === null ? '' : json_encode($body, JSON_THROW_ON_ERROR);
        $query += ['auth_key' => KEY, 'auth_timestamp' => (string) time(), 'auth_version' => '1.0'];
        if ($body !== null) {
            $query['body_md5'] = md5($text);
        }
        ksort($query);
        // The signature covers the values before they are percent-encoded for the URL.
        $pairs = implode('&', array_map(fn ($k, $v) => "$k=$v", array_keys($query), $query));
        $query['auth_signature'] = hash_hmac('sha256', "$method\n$path\n$pairs", SECRET);
        $url = "http://{$this->address}$path?" . http_build_query([...$query, ...$changes]);
        $context = stream_context_create(['http' => [
            'method' => $method,
            'header' => "Content-Type: application/json\r\nConnection: close",
            'content' => $text,
            'ignore_errors' => true,
            'timeout' => WAIT_S,
        ]]);
        $answer = file_get_contents($url, false, $context);
        if ($answer === false) {
            throw new RuntimeException("no answer to $method $path");
        }
        return [(int) explode(' ', $http_response_header[0])[1], json_decode($answer, true) ?? $answer];
    }
}

/** A minimal WebSocket subscriber: sends masked text frames and receives unmasked ones. */
final class Subscriber
{
    /** @var resource */
    private $socket;
    public string $id;

    public function __construct(string $address)
    {
        $this->socket = stream_socket_client("tcp://$address", $code, $text, WAIT_S);
        stream_set_timeout($this->socket, WAIT_S);
        $key = base64_encode(random_bytes(16));
        fwrite($this->socket, "GET /app/" . KEY . "?protocol=7 HTTP/1.1\r\nHost: $address\r\n"
            . "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            . "Sec-WebSocket-Key: $key\r\n\r\n");
        $head = '';
        while (!str_ends_with($head, "\r\n\r\n")) {
            $head .= $this->read(1);
        }
        $accept = base64_encode(sha1($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11', true));
        same(1, preg_match('~^HTTP/1.1 101 ~', $head), 'the answer 101');
        same(1, preg_match('~^sec-websocket-accept: ' . preg_quote($accept, '~') . "\r$~mi", $head), 'its key');
        $this->id = json_decode($this->event('pusher:connection_established')['data'], true)['socket_id'];
    }

    public function subscribe(string $channel, ?string $data = null): void
    {
        $fields = ['channel' => $channel];
        if (preg_match('~^(private|presence)-~', $channel)) {
            $signed = "{$this->id}:$channel" . ($data === null ? '' : ":$data");
            $fields['auth'] = KEY . ':' . hash_hmac('sha256', $signed, SECRET);
        }
        if ($data !== null) {
            $fields['channel_data'] = $data;
        }
        $this->send(json_encode(['event' => 'pusher:subscribe', 'data' => $fields]));
        same($channel, $this->event('pusher_internal:subscription_succeeded')['channel'], 'the channel');
    }

    /** Receives the next message and returns it. Throws if it is another event than `name`. */
    public function event(string $name): array
    {
        [$first, $length] = array_values(unpack('C2', $this->read(2)));
        same(0x81, $first, 'a whole text frame');
        if ($length === 126) {
            $length = unpack('n', $this->read(2))[1];
        }
        $message = json_decode($this->read($length), true, 64, JSON_THROW_ON_ERROR);
        same($name, $message['event'], 'the event');
        return $message;
    }

    private function send(string $text): void
    {
        $length = strlen($text);
        $head = $length < 126 ? pack('CC', 0x81, 0x80 | $length) : pack('CCn', 0x81, 0xfe, $length);
        $mask = random_bytes(4);
        fwrite($this->socket, $head . $mask . ($text ^ str_repeat($mask, intdiv($length, 4) + 1)));
    }

    private function read(int $length): string
    {
        $bytes = '';
        while (strlen($bytes) < $length) {
            $more = fread($this->socket, $length - strlen($bytes));
            if ($more === false || $more === '') {
                throw new RuntimeException('the connection has ended, or nothing came in time');
            }
            $bytes .= $more;
        }
        return $bytes;
    }
}

$tests = [
    'a published event reaches a subscriber' => function (Server $server): void {
        $subscriber = new Subscriber($server->address);
        $subscriber->subscribe('news');
        $data = json_encode(['text' => "\u{e9}\u{4e2d}\u{1f600}", 'list' => [1, null, str_repeat('x', 5000)]]);
        $event = ['name' => 'paid', 'channels' => ['news', 'empty'], 'data' => $data];
        same([200, []], $server->call('POST', '/events', $event), 'the answer');
        $heard = $subscriber->event('paid');
        same(['news', $data], [$heard['channel'], $heard['data']], 'what was heard');
    },
    'the publisher\'s own socket is left out' => function (Server $server): void {
        $subscriber = new Subscriber($server->address);
        $subscriber->subscribe('private-orders');
        $event = ['name' => 'mine', 'channel' => 'private-orders', 'data' => '1'];
        same(200, $server->call('POST', '/events', $event + ['socket_id' => $subscriber->id])[0], 'the answer');
        $event['name'] = 'theirs';
        same(200, $server->call('POST', '/events', $event)[0], 'the answer');
        same('private-orders', $subscriber->event('theirs')['channel'], 'the channel');
    },
    'a batch is taken in its order' => function (Server $server): void {
        $subscriber = new Subscriber($server->address);
        $subscriber->subscribe('news');
        $batch = [];
        for ($number = 0; $number < 10; $number++) {
            $batch[] = ['name' => "n$number", 'channel' => 'news', 'data' => (string) $number];
        }
        same([200, []], $server->call('POST', '/batch_events', ['batch' => $batch]), 'the answer');
        for ($number = 0; $number < 10; $number++) {
            same((string) $number, $subscriber->event("n$number")['data'], 'its data');
        }
        $batch[] = $batch[0];
        same(400, $server->call('POST', '/batch_events', ['batch' => $batch])[0], 'eleven events');
    },
    'channels and their members are told' => function (Server $server): void {
        $subscriber = new Subscriber($server->address);
        $subscriber->subscribe('presence-room', json_encode(['user_id' => 'ada', 'user_info' => ['age' => 36]]));
        [$status, $found] = $server->call('GET', '/channels', null, [
            'filter_by_prefix' => 'presence-', 'info' => 'user_count',
        ]);
        same([200, ['presence-room' => ['user_count' => 1]]], [$status, $found['channels']], 'the channels');
        [$status, $found] = $server->call('GET', '/channels/presence-room/users');
        same([200, [['id' => 'ada']]], [$status, $found['users']], 'the members');
        [$status, $found] = $server->call('GET', '/channels/nobody');
        same([200, false], [$status, $found['occupied']], 'an empty channel');
    },
    'what is not signed as it is sent is refused' => function (Server $server): void {
        $event = ['name' => 'paid', 'channel' => 'news', 'data' => '1'];
        $old = (string) (time() - 700);
        foreach ([
            'a changed signature' => [[], ['auth_signature' => str_repeat('0', 64)]],
            'a changed body' => [[], ['body_md5' => md5('other')]],
            'another key' => [[], ['auth_key' => 'other']],
            'an old time' => [['auth_timestamp' => $old], []],
        ] as $what => [$query, $changes]) {
            same(401, $server->call('POST', '/events', $event, $query, $changes)[0], $what);
        }
        $recent = (string) (time() - 500);
        same(200, $server->call('POST', '/events', $event, ['auth_timestamp' => $recent])[0], 'a recent time');
    },
    'an event that is too long is refused' => function (Server $server): void {
        foreach ([10240 => 200, 10241 => 413] as $length => $status) {
            $event = ['name' => 'long', 'channel' => 'news', 'data' => str_repeat('x', $length)];
            same($status, $server->call('POST', '/events', $event)[0], "$length bytes");
        }
    },
];

$failed = 0;
$began = microtime(true);
$server = new Server($argv[1]);
foreach ($tests as $name => $test) {
    try {
        $test($server);
        echo "ok: $name\n";
    } catch (Throwable $thrown) {
        $failed++;
        echo "FAILED: $name: {$thrown->getMessage()} (line {$thrown->getLine()})\n";
    }
}
same(0, $server->stop(), 'the exit code');
printf("Ran %d tests in %.1f s\n", count($tests), microtime(true) - $began);
exit($failed === 0 ? 0 : 1);

//! Signals, output and startup errors of the built program.

use super::child::*;
use crate::net::*;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, io};

#[test]
fn process_full_log_does_not_stop_it() {
    if !has_uring() {
        return;
    }
    let mut command = command("full", &format!("{BASE}log.level = 'trace'\n"));
    command.stderr(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let mut process = Process::spawn(command, PathBuf::new());
    for _ in 0..50 {
        let mut client = Client::subscriber(process.address, "c");
        Client::connect(process.address).publish("c", "x");
        assert_eq!(client.text(), event("c", "x"));
    }
    process.signal(libc::SIGTERM);
    assert_eq!(process.ended().code(), Some(0));
}

#[test]
fn process_sigterm_drains_and_exits_with_0() {
    if !has_uring() {
        return;
    }
    let mut process = Process::start("sigterm", &format!("{BASE}drain_s = 15\n"));
    let mut client = Client::subscriber(process.address, "c");
    process.signal(libc::SIGTERM);
    assert_eq!(client.close().0, 4200);
    client.send_close(4200);
    client.end();
    drop(client);
    assert_eq!(process.ended().code(), Some(0));
    let log = process.logged();
    assert!(log.contains("draining") && log.contains("stopped"), "{log}");
}

#[test]
fn process_second_signal_ends_it_at_once() {
    if !has_uring() {
        return;
    }
    let config = format!("{BASE}drain_s = 600\ntimeouts.close_ms = 600000\n");
    let mut process = Process::start("second-signal", &config);
    let mut client = Client::subscriber(process.address, "c");
    process.signal(libc::SIGTERM);
    assert_eq!(client.close().0, 4200);
    assert!(process.child.try_wait().unwrap().is_none(), "it waits for the client's close");
    process.signal(libc::SIGINT);
    assert_eq!(process.ended().code(), Some(130));
}

#[test]
fn process_second_one_on_the_same_port_is_refused() {
    if !has_uring() {
        return;
    }
    let process = Process::start("first", BASE);
    let address = process.address.to_string();
    let mut command = command("second", &BASE.replace("127.0.0.1:0", &address));
    let output = command.output().unwrap();
    let replies = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{replies}");
    let clear = format!("polycast: cannot listen on {address}: Address already in use");
    assert!(replies.contains(&clear), "{replies}");
    Client::open(process.address, "/echo").sync();
}

const SLEEPER: &str = "POLYCAST_TEST_SLEEPER";

/// Not a test: [`process_stopped_subscriber_is_closed_and_others_continue`] runs it as a process.
#[test]
fn sleeper() {
    let Ok(address) = env::var(SLEEPER) else { return };
    let mut client = Client::connect_narrow(address.parse().unwrap()).upgrade(APP_PATH);
    client.established();
    client.subscribe("c");
    println!("subscribed");
    client.drained();
}

#[test]
fn process_stopped_subscriber_is_closed_and_others_continue() {
    let mut config = config();
    config.limits.write_queue_bytes = 64 * 1024;
    let Some(server) = start(config) else { return };
    let address = server.addresses()[0];
    let mut reader = Client::subscriber(address, "c");
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["live::process::sleeper", "--exact", "--nocapture"]);
    let command = command.env(SLEEPER, address.to_string()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("subscribed")));
    signal_to(child.id(), libc::SIGSTOP);
    let mut publisher = Client::connect(address);
    let data = "x".repeat(10_000);
    for round in 0.. {
        assert!(round < 5000, "it is never noticed");
        if server.count("slow_consumer_closed") > 0 {
            break;
        }
        publisher.publish("c", &data);
        assert!(reader.text() == event("c", &data));
    }
    publisher.publish("c", "after");
    assert_eq!(reader.text(), event("c", "after"));
    assert_eq!(server.count("slow_consumer_closed"), 1);
    // After SIGCONT it reads up to its Close frame and exits.
    signal_to(child.id(), libc::SIGCONT);
    assert!(child.wait().unwrap().success());
    wait_count(&server, "connections", 2);
}

#[test]
fn process_doctor_finds_this_kernel_usable() {
    if !has_uring() {
        return;
    }
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_polycast"));
    let output = doctor.args(["doctor", "--io", io()]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let report = String::from_utf8(output.stdout).unwrap();
    let line = report.lines().find(|line| line.starts_with("the server's driver")).unwrap();
    assert!(line.contains(io()), "{report}");
}

#[test]
fn process_names_a_seccomp_filter_with_exit_code_78_if_io_uring_is_demanded() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_polycast"));
        doctor.args(["doctor", "--io", "io_uring"]);
        let mut demanding = Command::new(env!("CARGO_BIN_EXE_polycast"));
        demanding.args(["--io", "io_uring", "--listen", "127.0.0.1:0"]);
        for mut command in [doctor, demanding] {
            // SAFETY: only system calls between fork and exec.
            unsafe { command.pre_exec(move || forbid_io_uring(errno)) };
            let output = command.output().unwrap();
            let replies = [output.stdout, output.stderr].concat();
            let replies = String::from_utf8(replies).unwrap();
            assert_eq!(output.status.code(), Some(78), "{replies}");
            assert!(replies.contains("seccomp"), "{replies}");
        }
    }
}

/// The first command of the README, as a container with a default seccomp profile runs it.
#[test]
fn process_serves_on_epoll_where_a_seccomp_filter_forbids_io_uring() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live");
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join(format!("no-ring-{errno}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
        command.args(["--listen", "127.0.0.1:0"]).stderr(fs::File::create(&log).unwrap());
        // SAFETY: only system calls between fork and exec.
        unsafe { command.pre_exec(move || forbid_io_uring(errno)) };
        let mut process = Process::spawn(command, log);
        Client::open(process.address, "/echo").sync();
        let mut clients: Vec<Client> =
            (0..8).map(|_| Client::subscriber(process.address, "c")).collect();
        Client::connect(process.address).publish("c", "x");
        clients.iter_mut().for_each(|client| assert_eq!(client.text(), event("c", "x")));
        wait("the log", || process.logged().contains("ENGINE_STARTED"));
        let logged = process.logged();
        let warnings: Vec<&str> = logged.lines().filter(|line| line.contains("seccomp")).collect();
        assert_eq!(warnings.len(), 1, "{logged}");
        assert!(warnings[0].contains("epoll is used instead"), "{logged}");
        process.signal(libc::SIGTERM);
        drop(clients);
        assert_eq!(process.ended().code(), Some(0));
    }
}

/// The control thread runs without io_uring, too: it resolves the name of an upstream.
#[test]
fn process_control_thread_runs_where_a_seccomp_filter_forbids_io_uring() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://localhost:{}", upstream.local_addr().unwrap().port());
    let config = format!(
        "{BASE}[[routes]]\nwhen = [{{ path = '/proxy' }}]\nendpoint = 'proxy'\n\
         proxy.upstreams = ['{url}']\n"
    );
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live/no-ring-control.log");
    let mut command = command_on_any_driver("no-ring-control", &config);
    command.stderr(fs::File::create(&log).unwrap());
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(|| forbid_io_uring(libc::EPERM)) };
    let process = Process::spawn(command, log);
    upstream.set_nonblocking(true).unwrap();
    let mut clients = Vec::new();
    // A request before the name is known is answered with 502.
    let (mut proxied, start) = (None, std::time::Instant::now());
    while proxied.is_none() {
        assert!(start.elapsed() < PATIENCE, "the name is never known: {}", process.logged());
        let mut client = Client::connect(process.address);
        client.send(handshake("/proxy", "").as_bytes());
        clients.push(client);
        std::thread::sleep(std::time::Duration::from_millis(100));
        proxied = upstream.accept().ok().map(|(stream, _)| Client::from(stream));
    }
    let mut proxied = proxied.unwrap();
    proxied.stream.set_nonblocking(false).unwrap();
    let mut head = [0; 4];
    io::Read::read_exact(&mut proxied.stream, &mut head).unwrap();
    assert_eq!(&head, b"GET ");
}

/// With epoll each connection takes one of the process's open files.
#[test]
fn process_without_open_files_accepts_again_when_a_connection_closes() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live");
    fs::create_dir_all(&folder).unwrap();
    let log = folder.join("no-files.log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_polycast"));
    command.args(["--io", "epoll", "--listen", "127.0.0.1:0", "--threads", "1", "--no-pin"]);
    command.stderr(fs::File::create(&log).unwrap());
    // The program reserves files for itself, so it inherits others, which it does not count. Their
    // numbers are given, because those that are free depend on what other tests have open.
    let limit = || {
        // SAFETY: no memory is involved.
        (60..120).for_each(|file| _ = unsafe { libc::dup2(2, file) });
        limit_files(128)
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(limit) };
    let process = Process::spawn(command, log);
    let mut served = Vec::new();
    let mut waiting = loop {
        assert!(served.len() < 64, "more connections than files");
        let mut client = Client::connect(process.address);
        client.send(handshake("/echo", "").as_bytes());
        wait("an answer or a log line", || {
            client.stream.set_nonblocking(true).unwrap();
            let answered = client.stream.peek(&mut [0]).is_ok();
            client.stream.set_nonblocking(false).unwrap();
            answered || process.logged().contains("no open file")
        });
        if process.logged().contains("no open file") {
            break client;
        }
        assert_eq!(client.response().status, 101);
        served.push(client);
    };
    assert!(served.len() > 20, "{}", served.len());
    let before = cpu_ticks(&process);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let ticks = cpu_ticks(&process) - before;
    assert!(ticks < 30, "{ticks} ticks of 10 ms: a busy loop");
    assert_eq!(process.logged().matches("no open file").count(), 1, "{}", process.logged());
    drop(served.pop());
    assert_eq!(waiting.response().status, 101);
    waiting.sync();
    served.iter_mut().for_each(Client::sync);
}

/// The processor time of the process, in ticks of 10 ms.
fn cpu_ticks(process: &Process) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.child.id())).unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn limit_files(max: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: max, rlim_max: max };
    // SAFETY: `limit` is valid for the call to read.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Dashboards depend on these names.
#[test]
fn log_has_the_event_names_of_zilla() {
    if !has_uring() {
        return;
    }
    let config = format!(
        "{BASE}[log]\nlevel = 'warn,polycast=debug'\n[[guards]]\nname = 'g'\n\
         keys = [{{ secret = 'a secret of more than 32 bytes, as it must' }}]\n\
         [[routes]]\nwhen = [{{ path = '/guarded' }}]\nguarded = {{ g = [] }}\nendpoint = 'echo'\n\
         [[routes]]\nwhen = [{{ path = '/json' }}]\nendpoint = 'echo'\n\
         model.received.text = {{ model = 'json' }}\n\
         [[routes]]\nwhen = [{{ path = '/plain' }}]\nendpoint = 'echo'\n\
         model.received.text = {{ model = 'int32' }}\n"
    );
    let process = Process::start("events", &config);
    for (path, fields, replies) in [
        ("/guarded", "Authorization: Bearer a.b.c\r\n", None),
        ("/json", "", Some("{")),
        ("/plain", "", Some("one")),
    ] {
        let mut client = Client::connect(process.address);
        client.send(handshake(path, fields).as_bytes());
        let status = client.response().status;
        assert_eq!(status, if replies.is_some() { 101 } else { 403 });
        if let Some(replies) = replies {
            client.send_text(replies);
            client.close();
        }
    }
    // The log is written by another thread, so wait.
    for event in ["GUARD_JWT_AUTHORIZATION", "MODEL_JSON_VALIDATION", "MODEL_CORE_VALIDATION"] {
        let event = format!("event=\"{event}_FAILED\"");
        wait(&event, || process.logged().matches(&event).count() == 1);
    }
}

#[test]
fn log_has_the_reason_of_a_failed_tls_handshake() {
    if !has_uring() {
        return;
    }
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let config = format!(
        "threads = 1\npin = false\n[log]\nlevel = 'warn,polycast=debug'\n[[listeners]]\n\
         address = '127.0.0.1:0'\ntls.certificates = [{{ cert = '{fixtures}/localhost.pem', \
         key = '{fixtures}/localhost.key' }}]\n"
    );
    let process = Process::start("tls_event", &config);
    let mut client = Client::connect(process.address);
    client.send(b"\x16\x03\x01\x00\x05hello");
    wait("the event", || process.logged().contains("event=\"BINDING_TLS_HANDSHAKE_FAILED\""));
}

/// Installs a filter that answers the three calls of io_uring with `errno`.
fn forbid_io_uring(errno: i32) -> io::Result<()> {
    let statement = |code, k| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let call = |number: i64, jt| libc::sock_filter { jt, ..statement(equal, number as u32) };
    let refuse = libc::SECCOMP_RET_ERRNO | errno as u32;
    let mut program = [
        statement(load, 0),
        call(libc::SYS_io_uring_setup, 3),
        call(libc::SYS_io_uring_enter, 2),
        call(libc::SYS_io_uring_register, 1),
        statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET, refuse),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the calls read `filter` and `program`, which outlive them.
    let installed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
    };
    if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The command that runs the program after `first` in a shell.
fn limited(name: &str, first: &str, config: &str) -> Command {
    let program = command(name, config);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{first} && exec \"$0\" \"$@\"")]);
    shell.arg(program.get_program()).args(program.get_args()).stdin(Stdio::null());
    shell
}

#[test]
fn process_with_few_open_files_says_so_or_serves() {
    if !has_uring() {
        return;
    }
    let output = limited("files-63", "ulimit -n 63", BASE).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the limit of open files is 63, and 64 are needed"), "{text}");
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live/files-64.log");
    let mut command = limited("files-64", "ulimit -n 64", BASE);
    command.stderr(fs::File::create(&log).unwrap());
    let mut process = Process::spawn(command, log);
    Client::open(process.address, "/echo").sync();
    process.signal(libc::SIGTERM);
    assert_eq!(process.ended().code(), Some(0));
    let log = process.logged();
    assert!(log.contains("open files is low: raise it with `ulimit -n"), "{log}");
}

#[test]
fn process_with_little_locked_memory_names_the_limit() {
    // SAFETY: no memory is involved.
    if !has_uring() || unsafe { libc::geteuid() } != 0 {
        return println!("SKIPPED: only root can become a user without CAP_IPC_LOCK");
    }
    // Another user may not read the program in its folder.
    let copy = env::temp_dir().join(format!("polycast-locked-{}", std::process::id()));
    fs::copy(env!("CARGO_BIN_EXE_polycast"), &copy).unwrap();
    let run = |kib: u32, arguments: &str| {
        let script = format!("ulimit -l {kib} && exec {} {arguments}", copy.display());
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stdin(Stdio::null()).current_dir("/");
        let output = shell.uid(65534).gid(65534).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = run(64, "--io io_uring --listen 127.0.0.1:0");
    let (_, report) = run(64, "doctor");
    fs::remove_file(&copy).unwrap();
    assert!(report.contains("64 KiB, for the rings of all reactors"), "{report}");
    assert!(report.contains("raise it with `ulimit -l"), "{report}");
    if code != Some(78) {
        // Kernels before 6.14 do not count rings against this limit.
        return println!("SKIPPED: the ring was made: {text}");
    }
    assert!(text.contains("RLIMIT_MEMLOCK, the limit of locked memory, is 64 KiB"), "{text}");
    assert!(text.contains("raise it with `ulimit -l"), "{text}");
}

/// A control group of its own with a quota of half a processor, and the file that lets a process
/// enter it.
struct HalfCore(PathBuf);

impl HalfCore {
    fn new() -> Option<HalfCore> {
        let name = format!("polycast-test-{}", std::process::id());
        let v1 = PathBuf::from("/sys/fs/cgroup/cpu").join(&name);
        let v2 = PathBuf::from("/sys/fs/cgroup").join(&name);
        for (folder, file, quota) in
            [(v1, "cpu.cfs_quota_us", "50000"), (v2, "cpu.max", "50000 100000")]
        {
            let has_parent =
                folder.parent().is_some_and(|parent| parent.join("cgroup.procs").exists());
            if !has_parent || fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = HalfCore(folder);
            if fs::write(group.0.join(file), quota).is_ok() {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for HalfCore {
    fn drop(&mut self) {
        // The kernel removes a process from its group some time after its end.
        wait("the group is empty", || fs::remove_dir(&self.0).is_ok());
    }
}

#[test]
fn process_with_half_a_core_runs_one_thread_and_pins_none() {
    if !has_uring() {
        return;
    }
    let Some(group) = HalfCore::new() else {
        return println!("SKIPPED: no control group with a quota can be made here");
    };
    let enter = format!("echo $$ > {}/cgroup.procs", group.0.display());
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("live/half.log");
    let config = "listeners = [{ address = '127.0.0.1:0' }]\n";
    let mut shell = limited("half", &enter, config);
    shell.stderr(fs::File::create(&log).unwrap());
    let mut process = Process::spawn(shell, log);
    Client::open(process.address, "/echo").sync();
    process.signal(libc::SIGTERM);
    assert_eq!(process.ended().code(), Some(0));
    let log = process.logged();
    assert!(log.contains("cpu_quota=\"0.50\" reactors=1 pinned=false"), "{log}");
    assert!(log.contains("threads are not pinned"), "{log}");
}

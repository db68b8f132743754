//! The connection to the primary, for as long as the process runs.

use super::super::pause::reconnect_pause;
use super::link::{Login, REQUEST, RequestFailure, ServerAddress, ServerLink};
use super::primary::{self, Primary, read_info};
use super::script::{Known, SCRIPTS, is_temporary, number};
use super::shared::{RedisSignal, RedisState};
use super::{page, send};
use crate::cluster::{EngineEvent, LogInfo};
use crate::config::Cluster;
use crate::uring::sys;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

/// The time between two looks at the primary.
const LOOK: Duration = Duration::from_secs(2);

/// How to log in.
///
/// # Errors
/// The certificate authorities, or the certificate of the process, cannot be used.
pub(super) fn login(cluster: &Cluster) -> io::Result<Login> {
    let tls = match cluster.has_tls() {
        true => Some(Arc::new(crate::control::cluster::tls::client_config(cluster)?)),
        false => None,
    };
    let password = cluster.password.expose().to_owned();
    Ok(Login { tls, user: cluster.user.clone(), password })
}

/// Connects and reconnects for ever.
pub(super) async fn watch(shared: Rc<RedisState>, mut signals: UnboundedReceiver<RedisSignal>) {
    let mut attempts = 0;
    for life in 1.. {
        let began = Instant::now();
        match begin(&shared).await {
            Ok((mut primary, log)) => {
                shared.log_return();
                let failure = serve(&shared, &mut primary, life, log, &mut signals).await;
                shared.stop_delivery();
                shared.appends.take();
                shared.primary.take();
                shared.events.put(EngineEvent::Down);
                shared.log(&format!("the connection to the engine is lost: {failure}"));
                if began.elapsed() > LOOK {
                    attempts = 0;
                }
            }
            Err(failure) => shared.log_failure(&failure),
        }
        sleep(reconnect_pause(attempts)).await;
        attempts += 1;
    }
}

async fn begin(shared: &RedisState) -> Result<(Primary, LogInfo), RequestFailure> {
    let mut primary = primary::find(&shared.cluster, &shared.login, &shared.keys).await?;
    if let Some(text) = primary.info.problem(shared.cluster.kind()) {
        return Err(RequestFailure::Refused { code: String::new(), text });
    }
    load_scripts(&mut primary.link).await?;
    let log = attach(shared, &mut primary.link, primary.info.run_id()).await?;
    shared.log_warnings(primary.info.warnings(shared.cluster.log_bytes));
    Ok((primary, log))
}

/// A random number for a log or a run that begins.
pub(super) fn draw() -> Result<u64, RequestFailure> {
    let drawn = sys::random_u64().map_err(|error| RequestFailure::Lost(error.to_string()))?;
    Ok(drawn.max(1))
}

/// Makes the scripts known to the server.
async fn load_scripts(link: &mut ServerLink) -> Result<(), RequestFailure> {
    let mut pipeline = redis::pipe();
    for script in SCRIPTS.all() {
        pipeline.add_command(script.load());
    }
    for answer in link.ask_all(&pipeline, REQUEST).await? {
        answer?;
    }
    Ok(())
}

/// Asks for the state of the log. `run_id` is the primary's name for its run.
async fn attach(
    shared: &RedisState,
    link: &mut ServerLink,
    run_id: &str,
) -> Result<LogInfo, RequestFailure> {
    let attach = shared.keys.attach(shared.known.get(), run_id, draw()?);
    let answer = link.ask(&attach, REQUEST).await?;
    let log = page::log_state(answer)
        .ok_or_else(|| RequestFailure::Lost("the state of the log is malformed".to_owned()))?;
    // Meanwhile entries may have come.
    let known = shared.known.get();
    let is_same = known.epoch == log.epoch;
    let seen = if is_same { known.seen } else { 0 };
    shared.known.set(Known { epoch: log.epoch, run: log.run, seen });
    if !is_same {
        shared.stop_delivery();
    }
    Ok(LogInfo { epoch: log.epoch, last: log.last })
}

/// Uses a connection until it is lost. Returns why it is.
async fn serve(
    shared: &Rc<RedisState>,
    primary: &mut Primary,
    life: u64,
    log: LogInfo,
    signals: &mut UnboundedReceiver<RedisSignal>,
) -> RequestFailure {
    let (appends, to_send) = unbounded_channel();
    shared.appends.replace(Some(appends));
    shared.primary.replace(Some((primary.link.share(), primary.address.clone())));
    spawn_local(send::send(shared.clone(), primary.link.share(), life, to_send));
    shared.events.put(EngineEvent::Up(log));
    let mut checked = Instant::now();
    loop {
        let result = match timeout(LOOK.saturating_sub(checked.elapsed()), signals.recv()).await {
            Ok(Some(RedisSignal::Broken(delivery))) if delivery == shared.delivery.get() => {
                again(shared, primary).await
            }
            Ok(Some(RedisSignal::Changed(of))) if of == life => again(shared, primary).await,
            Ok(Some(RedisSignal::Lost(of, text))) if of == life => Err(RequestFailure::Lost(text)),
            Ok(_) => Ok(()),
            Err(_) => {
                checked = Instant::now();
                match look(shared, primary).await {
                    // The server has forgotten its scripts.
                    Err(RequestFailure::Refused { code, .. }) if code == "NOSCRIPT" => {
                        again(shared, primary).await
                    }
                    result => result,
                }
            }
        };
        if let Err(failure) = result {
            return failure;
        }
    }
}

/// Begins again on the same connection.
async fn again(shared: &RedisState, primary: &mut Primary) -> Result<(), RequestFailure> {
    let run_id = read_primary(&mut primary.link, &primary.address).await?;
    load_scripts(&mut primary.link).await?;
    let log = attach(shared, &mut primary.link, &run_id).await?;
    shared.events.put(EngineEvent::Up(log));
    Ok(())
}

/// Looks whether the primary and the log are still the same, and removes what has expired.
async fn look(shared: &RedisState, primary: &mut Primary) -> Result<(), RequestFailure> {
    let Primary { link, address, .. } = primary;
    if primary::has_moved(&shared.cluster, &shared.login, address).await {
        return Err(RequestFailure::Lost(format!("Sentinel has replaced {address}")));
    }
    let run_id = read_primary(link, address).await?;
    let before = shared.known.get().epoch;
    let log = attach(shared, link, &run_id).await?;
    if log.epoch != before {
        shared.events.put(EngineEvent::Up(log));
    }
    match link.ask(&shared.keys.expire(&shared.cluster), REQUEST).await {
        Ok(bytes) => {
            shared.log_accepted();
            let size = number(&bytes).map(EngineEvent::Size);
            size.into_iter().for_each(|size| shared.events.put(size));
            Ok(())
        }
        // Reading goes on meanwhile, and the node notices that its renewals are refused.
        Err(RequestFailure::Refused { code, text }) if is_temporary(&code) => {
            shared.log_refused(&code, &text);
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

/// The primary's name for its run.
///
/// # Errors
/// It is none any more.
async fn read_primary(
    link: &mut ServerLink,
    address: &ServerAddress,
) -> Result<String, RequestFailure> {
    let info = read_info(link).await?;
    match info.is_primary() {
        true => Ok(info.run_id().to_owned()),
        false => Err(RequestFailure::Lost(format!("{address} is not a primary any more"))),
    }
}

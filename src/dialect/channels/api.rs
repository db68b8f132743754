//! The HTTP API: verifies requests, routes them by path and method, and publishes events.

use super::super::context::DialectContext;
use super::super::effects::Effect;
use super::super::reply::{Answered, HttpReply};
use super::data::{Target, USER};
use super::publish::{Accepted, PublishReply, PublishSource};
use super::reply::{NOT_READ, empty, json_error};
use super::vendor::Vendor;
use super::{history, idempotency, reads, signature};
use crate::codec::json::MalformedJson;
use crate::dialect::{Env, Event, EventPayload};
use crate::http::Request;
use crate::http::query;

/// The largest difference between `auth_timestamp` and the server's clock, in seconds.
const TOLERANCE_S: u64 = 600;

/// Answers an HTTP API request for application `app`. `path` is the part after the application's
/// id.
pub(super) fn answer<V: Vendor>(
    context: &mut DialectContext<'_>,
    app: u32,
    path: &str,
    request: &mut Request<'_>,
) -> Answered {
    let entry = context.env.apps.get(app);
    if let Err(refused) = verify::<V>(context, app, request) {
        if let signature::SignatureError::Expired { given, now, .. } = refused {
            stale(context, app, given, now);
        }
        let foreign = V::DATA.quirks.foreign_key != 401
            && refused == signature::SignatureError::Key
            && is_foreign::<V>(context, request);
        let status = if foreign { V::DATA.quirks.foreign_key } else { refused.status() };
        return Answered::Now(json_error::<V>(status, &refused.to_string()));
    }
    if !entry.config.enabled {
        return Answered::Now(json_error::<V>(403, "The application is disabled"));
    }
    if context.draining {
        return Answered::Now(json_error::<V>(503, "The server is shutting down"));
    }
    if !context.env.runtime.cluster.serves() {
        return Answered::Now(json_error::<V>(503, "This node has not joined its cluster yet"));
    }
    let Some(target) = V::DATA.target(path) else {
        return Answered::Now(json_error::<V>(404, "The API has no such path"));
    };
    if !serves(context.env, app, &target) {
        return Answered::Now(json_error::<V>(503, NOT_READ));
    }
    let method = match target {
        Target::Channels | Target::Channel(_) | Target::Users(_) | Target::History(_) => "GET",
        _ => "POST",
    };
    if request.method != method {
        let message = format!("The method {} is not allowed here", request.method);
        return Answered::Now(HttpReply { allow: Some(method), ..json_error::<V>(405, &message) });
    }
    match target {
        Target::Events => publish::<V>(context, app, Publishing::Event, request),
        Target::Batch => publish::<V>(context, app, Publishing::Batch, request),
        Target::Channels => reads::channels::<V>(context, app, request.query()),
        Target::Channel(name) => reads::channel::<V>(context, app, &name, request.query()),
        Target::History(name) => history::events::<V>(context, app, &name, request.query()),
        Target::Users(name) => reads::users::<V>(context, app, &name),
        Target::ToUser(user) => publish::<V>(context, app, Publishing::ToUser(&user), request),
        Target::Terminate(user) => terminate::<V>(context, app, &user),
    }
}

/// Whether this node has read what the log of its cluster has of a request's application, and of
/// that of the source if the request reads a channel that is a view.
fn serves(env: &Env, app: u32, target: &Target<'_>) -> bool {
    let source = match target {
        Target::Channel(name) | Target::Users(name) | Target::History(name) => {
            env.links.resolve(app, name).map(|source| source.app)
        }
        _ => None,
    };
    env.serves(app) && source.is_none_or(|source| env.serves(source))
}

/// Counts a request refused because of its `auth_timestamp`, and logs a warning at most once a
/// minute, because a wrong clock makes every request fail.
fn stale(context: &DialectContext<'_>, app: u32, given: u64, now: u64) {
    if let Some(counters) = context.env.runtime.counters.get(usize::from(context.conn.core)) {
        counters.requests_stale.add(1);
    }
    let entry = context.env.apps.get(app);
    if entry.stale_is_news(context.now.ms) {
        let id = &*entry.config.id;
        tracing::warn!(
            app = id,
            auth_timestamp = given,
            server_time = now,
            "requests are refused because of their auth_timestamp: a clock is wrong, or requests \
             are repeated"
        );
    }
}

/// Whether the request is signed with a key of another application.
fn is_foreign<V: Vendor>(context: &DialectContext<'_>, request: &Request<'_>) -> bool {
    let key = query::get(request.query(), "auth_key").unwrap_or("");
    let other = context.env.apps.by_key(key);
    other.is_some_and(|other| is_signed::<V>(context, other, request))
}

/// Whether the request's head is signed with a key of application `app`. The signature covers
/// `body_md5`, but the body is not compared with it here.
pub(super) fn is_signed<V: Vendor>(
    context: &DialectContext<'_>,
    app: u32,
    request: &Request<'_>,
) -> bool {
    check::<V>(context, app, request, false).is_ok()
}

fn verify<V: Vendor>(
    context: &DialectContext<'_>,
    app: u32,
    request: &Request<'_>,
) -> Result<(), signature::SignatureError> {
    check::<V>(context, app, request, true)
}

fn check<V: Vendor>(
    context: &DialectContext<'_>,
    app: u32,
    request: &Request<'_>,
    has_body: bool,
) -> Result<(), signature::SignatureError> {
    let entry = context.env.apps.get(app);
    let signed = signature::Signed {
        method: request.method,
        path: request.path(),
        query: request.query(),
        body: has_body.then_some(&*request.body),
        prefix: &context.env.config.pusher.path_prefix,
    };
    let tolerance = entry.config.check_timestamp.then_some(TOLERANCE_S);
    signature::verify(&signed, V::DATA.signing, &entry.keys, context.now.unix_s, tolerance)
}

/// What a request publishes.
#[derive(Clone, Copy)]
enum Publishing<'p> {
    /// One event on one or several channels.
    Event,
    /// A batch of events.
    Batch,
    /// One event to all connections of this signed-in user.
    ToUser(&'p str),
}

/// Publishes what the body of the request says.
fn publish<V: Vendor>(
    context: &mut DialectContext<'_>,
    app: u32,
    what: Publishing<'_>,
    request: &mut Request<'_>,
) -> Answered {
    let mut keys = request.headers.values(idempotency::HEADER);
    let key = keys.next();
    if keys.next().is_some() {
        return reads::refuse::<V>("X-Idempotency-Key is given more than once");
    }
    let (env, now_ms) = (context.env, context.now.ms);
    let skipped = &[idempotency::MEMBER];
    let source = PublishSource { env, app, now_ms, first_part: 0, key, skipped };
    let before = context.effects.mark();
    let effects = &mut context.effects;
    let done = context.json.parse(request.body, |body| match what {
        Publishing::Event => source.event::<V>(body, effects),
        Publishing::Batch => source.batch::<V>(body, effects),
        Publishing::ToUser(user) => source.to_user::<V>(user, body, effects),
    });
    let refused = match done {
        Ok(Ok(Accepted { reply: PublishReply::Now(reply), .. })) => return Answered::Now(reply),
        Ok(Ok(Accepted { reply: PublishReply::Later(finish), .. })) => {
            return Answered::Later(finish);
        }
        Ok(Err((status, message))) => json_error::<V>(status, &message),
        Err(MalformedJson) => json_error::<V>(400, "The body is not valid JSON"),
    };
    // Nothing is published.
    context.effects.truncate(before);
    Answered::Now(refused)
}

/// Closes all connections of a signed-in user, with the application's `terminate_close_code`.
fn terminate<V: Vendor>(context: &mut DialectContext<'_>, app: u32, user: &str) -> Answered {
    let name = format!("{}{user}", USER);
    let code = context.env.apps.get(app).config.terminate_close_code;
    let payload = EventPayload::Close(code, V::DATA.codes.terminated);
    let event = Event { payload, ..Event::default() };
    context.effects.push(Effect::Publish { app, name, event, part: 0 });
    Answered::Now(empty())
}

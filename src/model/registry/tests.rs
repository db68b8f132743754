//! Tests of the schema cache: which schemas are fetched, cached and remembered as failed, and the
//! limits.

use super::super::schema::Doc;
use super::super::spec::{CatalogKind, ModelKind};
use super::ids::*;
use super::*;

fn catalog() -> Catalog {
    Catalog::registry("r", CatalogKind::SchemaRegistry, "http://registry.example")
}

fn place() -> Arc<RegistryHandle> {
    Registries::default().place(&catalog()).0
}

/// A cell that has a user.
fn wanted(
    place: &RegistryHandle,
    what: &SchemaRef,
    like: Option<&RegistryHandle>,
) -> Arc<SchemaCell> {
    let cell = place.cell(what, &shape(), like);
    cell.hold();
    cell
}

fn shape() -> Shape {
    Shape { kind: ModelKind::Json, record: None }
}

fn schema(id: SchemaId) -> Arc<Schema> {
    let doc = Doc { text: "{}".to_owned(), references: Vec::new() };
    Arc::new(Schema { id, model: shape().compile(&doc).unwrap() })
}

fn subject(name: &str) -> SchemaRef {
    SchemaRef::Subject { name: name.to_owned(), version: "latest".to_owned() }
}

fn failed<T>() -> Result<T, FetchFailure> {
    Err(FetchFailure::Failed("down".to_owned()))
}

const RETRIEVED: SchemaLookup = SchemaLookup::Retrieved;
const MAX_AGE_MS: u64 = 300_000;

#[test]
fn registry_subject_is_fetched_at_start_and_when_old() {
    let place = place();
    let cell = wanted(&place, &subject("a"), None);
    assert!(cell.current().is_none());
    assert_eq!(place.deadline_ms(0), 0);
    let jobs = place.due(100);
    assert_eq!((jobs.len(), jobs[0].known), (1, None));
    assert_eq!((place.due(100).len(), place.deadline_ms(100)), (0, u64::MAX), "one at a time");
    assert_eq!(place.outcome(&jobs[0], Ok(Some(schema(7))), 200), RETRIEVED);
    assert_eq!(cell.current().unwrap().id, 7);
    assert_eq!(place.deadline_ms(200), 200 + MAX_AGE_MS);
    assert!(place.due(199 + MAX_AGE_MS).is_empty());
    let jobs = place.due(200 + MAX_AGE_MS);
    assert_eq!(jobs[0].known, Some(7));
    // The schema is unchanged.
    assert_eq!(place.outcome(&jobs[0], Ok(None), MAX_AGE_MS * 2), RETRIEVED);
    assert_eq!(cell.current().unwrap().id, 7);
    let jobs = place.due(MAX_AGE_MS * 3);
    place.outcome(&jobs[0], Ok(Some(schema(8))), MAX_AGE_MS * 3);
    assert_eq!(cell.current().unwrap().id, 8);
}

#[test]
fn registry_failures_back_off_and_keep_the_old_schema() {
    let place = place();
    let cell = wanted(&place, &subject("a"), None);
    let mut now_ms = 0;
    let outcome = |stale| SchemaLookup::Failed { stale };
    let jobs = place.due(now_ms);
    assert_eq!(place.outcome(&jobs[0], failed(), now_ms), outcome(false));
    now_ms += 1000;
    let jobs = place.due(now_ms);
    place.outcome(&jobs[0], Ok(Some(schema(7))), now_ms);
    now_ms += MAX_AGE_MS;
    for wait_s in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let jobs = place.due(now_ms);
        assert_eq!(place.outcome(&jobs[0], failed(), now_ms), outcome(true));
        now_ms += wait_s * 1000;
        assert_eq!(place.deadline_ms(now_ms), now_ms);
        assert!(place.due(now_ms - 1).is_empty());
    }
    assert_eq!(cell.current().unwrap().id, 7);
    let jobs = place.due(now_ms);
    assert_eq!(place.outcome(&jobs[0], Ok(None), now_ms), RETRIEVED);
    assert_eq!(place.deadline_ms(now_ms), now_ms + MAX_AGE_MS);
}

#[test]
fn registry_schema_by_id_is_fetched_once() {
    let place = place();
    let _cell = wanted(&place, &SchemaRef::Id(7), None);
    let jobs = place.due(0);
    place.outcome(&jobs[0], Ok(Some(schema(7))), 0);
    assert_eq!(place.deadline_ms(0), u64::MAX);
}

#[test]
fn registry_bounds_fetches_and_skips_unused_schemas() {
    let place = place();
    let names: Vec<_> = (0..AT_ONCE + 1).map(|n| subject(&n.to_string())).collect();
    let mut cells: Vec<_> = names.iter().map(|it| wanted(&place, it, None)).collect();
    assert!(Arc::ptr_eq(&cells[0], &place.cell(&names[0], &shape(), None)), "one for a name");
    let jobs = place.due(0);
    assert_eq!((jobs.len(), place.deadline_ms(0)), (AT_ONCE, u64::MAX));
    place.outcome(&jobs[0], Ok(Some(schema(1))), 0);
    assert_eq!((place.deadline_ms(0), place.due(0).len()), (0, 1));
    cells.clear();
    drop(jobs);
    assert_eq!(place.due(0).len(), 0);
    assert_eq!(lock(&place.state).cells.len(), AT_ONCE, "those that are being fetched stay");
}

fn is_here(place: &RegistryHandle, id: SchemaId) -> bool {
    matches!(place.find(1, id, 0), Find::Here(found) if found.id == id)
}

#[test]
fn registry_id_is_requested_once() {
    let place = place();
    place.shape(&shape());
    for _ in 0..100 {
        assert!(matches!(place.find(1, 7, 0), Find::Coming));
    }
    let jobs = place.due(0);
    assert_eq!((jobs.len(), &jobs[0].what), (1, &SchemaRef::Id(7)));
    assert!(matches!(place.find(1, 7, 0), Find::Coming));
    assert!(place.due(0).is_empty(), "it is under way");
    assert_eq!(place.outcome(&jobs[0], Ok(Some(schema(7))), 0), RETRIEVED);
    assert!(is_here(&place, 7));
    assert_eq!(place.deadline_ms(0), u64::MAX);
}

#[test]
fn registry_unknown_ids_are_remembered_for_a_while() {
    for (failure, is_missing) in [
        (FetchFailure::NotFound, true),
        (FetchFailure::Bad("x".to_owned()), true),
        (FetchFailure::Failed("x".to_owned()), false),
    ] {
        let place = place();
        place.shape(&shape());
        place.find(1, 7, 0);
        let jobs = place.due(0);
        assert_eq!(
            place.outcome(&jobs[0], Err(failure), 100),
            SchemaLookup::Failed { stale: false }
        );
        assert!(place.due(99 + FAILED_RETRY_MS).is_empty());
        assert_eq!(matches!(place.find(1, 7, 0), Find::NotFound), is_missing);
        assert!(place.due(99 + FAILED_RETRY_MS).is_empty());
        assert!(place.due(100 + FAILED_RETRY_MS).is_empty(), "no request since");
        assert!(matches!(place.find(1, 7, 0), Find::Coming));
        assert_eq!(place.due(100 + FAILED_RETRY_MS).len(), 1);
    }
}

#[test]
fn registry_drops_the_least_recently_used_id() {
    let mut ids = Ids::default();
    for id in 0..MAX_CACHED as SchemaId {
        ids.put((id, 0), schema(id));
    }
    assert!(matches!(ids.find(1, (0, 0)), Find::Here(_)));
    ids.put((MAX_CACHED as SchemaId, 0), schema(9));
    assert_eq!(ids.known.len(), MAX_CACHED);
    assert!(matches!(ids.find(1, (0, 0)), Find::Here(_)));
    assert!(matches!(ids.find(1, (1, 0)), Find::Coming));
    assert!(matches!(ids.find(1, (2, 0)), Find::Here(_)));
}

#[test]
fn registry_bounds_the_cost_of_made_up_ids() {
    let place = place();
    place.shape(&shape());
    for id in 0..MAX_QUEUED as SchemaId * 10 {
        place.find(id / 2, id, 0);
    }
    assert_eq!(lock(&place.state).ids.queued.len(), MAX_QUEUED);
    let mut begun = 0;
    loop {
        let jobs = place.due(999);
        if jobs.is_empty() {
            break;
        }
        begun += jobs.len();
        for job in jobs {
            place.outcome(&job, Err(FetchFailure::NotFound), 999);
        }
    }
    assert_eq!((begun, place.deadline_ms(999)), (MAX_FETCHES_PER_S as usize, 1000));
    assert_eq!(place.due(1000).len(), AT_ONCE);
    let mut ids = Ids::default();
    for id in 0..=MAX_FAILED as SchemaId {
        ids.put_failed((id, 0), true, 0);
    }
    assert_eq!(ids.failed.len(), MAX_FAILED);
    assert!(matches!(ids.find(1, (1, 0)), Find::NotFound));
    assert!(matches!(ids.find(1, (0, 0)), Find::Coming), "the oldest is forgotten");
}

#[test]
fn registry_reload_keeps_fetched_schemas() {
    let registries = Registries::default();
    let (old, _) = registries.place(&catalog());
    let shape = shape();
    let cell = wanted(&old, &subject("a"), None);
    old.shape(&shape);
    old.find(1, 5, 0);
    for job in old.due(0) {
        old.outcome(&job, Ok(Some(schema(5))), 0);
    }
    let (same, _) = registries.place(&catalog());
    assert!(
        Arc::ptr_eq(&old, &same) && Arc::ptr_eq(&cell, &same.cell(&subject("a"), &shape, None))
    );
    // A catalog with another maximum age shares the cached schemas, and fetches them again.
    let (new, like) = registries.place(&Catalog { max_age_s: Some(9), ..catalog() });
    let fresh = wanted(&new, &subject("a"), like.as_deref());
    drop(like);
    assert_eq!(fresh.current().unwrap().id, 5);
    assert!(is_here(&new, 5));
    assert_eq!(new.due(0).len(), 1);
    // A catalog with another context shares no schemas.
    let other = Catalog { context: Some("other".to_owned()), ..catalog() };
    let (other, like) = registries.place(&other);
    assert!(like.is_none());
    assert!(other.cell(&subject("a"), &shape, None).current().is_none());
    assert_eq!(registries.places().len(), 3);
    drop((old, same, other));
    assert_eq!(registries.places().len(), 1, "a registry without handles is removed");
}

#[test]
fn registry_wakes_the_fetcher_for_new_requests() {
    let registries = Registries::default();
    let notified = Arc::new(Mutex::new(0));
    let notifier = notified.clone();
    registries.notifier().attach(move || *lock(&notifier) += 1);
    let (place, _) = registries.place(&catalog());
    place.shape(&shape());
    (0..10).for_each(|_| _ = place.find(1, 7, 0));
    assert_eq!(*lock(&notified), 1);
}

#[test]
fn registry_does_not_fetch_unreferenced_schemas() {
    let place = place();
    let cell = place.cell(&subject("a"), &shape(), None);
    assert_eq!((place.deadline_ms(0), place.due(0).len()), (u64::MAX, 0));
    cell.hold();
    cell.hold();
    cell.release();
    assert_eq!(place.deadline_ms(0), 0);
    let jobs = place.due(0);
    place.outcome(&jobs[0], Ok(Some(schema(7))), 0);
    cell.release();
    assert_eq!((place.deadline_ms(MAX_AGE_MS), place.due(MAX_AGE_MS).len()), (u64::MAX, 0));
    cell.release();
    cell.hold();
    assert_eq!(place.due(MAX_AGE_MS).len(), 1);
}

fn queued(place: &RegistryHandle) -> Vec<(SchemaId, u64)> {
    lock(&place.state).ids.queued.iter().map(|((id, _), requester)| (*id, *requester)).collect()
}

#[test]
fn registry_connection_that_makes_numbers_up_has_its_share_and_no_more() {
    let place = place();
    place.shape(&shape());
    for id in 0..1000 {
        place.find(1, id, 0);
    }
    assert_eq!(queued(&place).len(), SHARE);
    // Other connections fill the queue; the next connection still gets entries.
    for requester in 2..=(MAX_QUEUED / SHARE) as u64 {
        (0..1000).for_each(|id| _ = place.find(requester, requester * 1000 + id, 0));
    }
    assert_eq!(queued(&place).len(), MAX_QUEUED);
    for id in [70_001, 70_002] {
        place.find(100, id, 0);
        assert!(queued(&place).contains(&(id, 100)), "{id}");
        assert_eq!(queued(&place).len(), MAX_QUEUED);
    }
    // A connection does not displace entries of connections that have no more than itself.
    for requester in 200..1000 {
        place.find(requester, requester * 1000, 0);
    }
    let held = |requester| queued(&place).iter().filter(|(_, it)| *it == requester).count();
    assert!((1..=100).all(|requester| held(requester) <= 2), "{:?}", queued(&place));
    assert!(held(100) >= 1, "who has the least keeps it");
}

#[test]
fn registry_number_that_had_a_schema_is_fetched_first() {
    let mut ids = Ids::default();
    for id in 0..=MAX_CACHED as SchemaId {
        ids.put((id, 0), schema(id));
    }
    (5000..5008).for_each(|id| _ = ids.find(1, (id, 0)));
    assert!(matches!(ids.find(2, (0, 0)), Find::Coming), "it went for want of room");
    assert_eq!(ids.next(0), Some((0, 0)));
    ids.put((0, 0), schema(0));
    assert!(!ids.evicted.contains(&(0, 0)));
    for id in 0..=(MAX_CACHED + MAX_EVICTED) as SchemaId {
        ids.put((id + 10_000, 0), schema(id));
    }
    assert_eq!((ids.known.len(), ids.evicted.len()), (MAX_CACHED, MAX_EVICTED));
}

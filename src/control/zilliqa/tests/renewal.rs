//! Tests of reloads that change the nodes.

use super::*;

const CONTRACT: ContractAddress = [0x11; 20];

#[test]
fn poller_reload_continues_after_the_last_epoch() {
    let mut world = World::new(&[Shape::Zq1], None);
    world.run(1000);
    world.tips(103);
    world.run(1000);
    world.check(101, 103);
    // Reload while requests for parts of blocks, the latest block and a contract are in flight.
    world.nodes[0].behaviour = Behaviour::Mute;
    world.tips(110);
    world.ask(&[CONTRACT]);
    world.run(1000);
    let mut config = world.poller.config().clone();
    config.urls.push(crate::config::Secret::new("http://m"));
    world.nodes.push(Mock { chain: Chain::new(Shape::Zq1), tip: 105, behaviour: Behaviour::Good });
    world.nodes[0].behaviour = Behaviour::Down;
    world.poller.renew(config.clone(), world.now_ms);
    world.run(1000);
    world.check(101, 105);
    assert_eq!(world.received.len(), 1);
    // Late responses of the old nodes are ignored.
    world.run(2 * TIMEOUT_MS);
    world.check(101, 105);
    config.urls.clear();
    world.poller.renew(config, world.now_ms);
    world.ask(&[CONTRACT]);
    world.run(2 * TIMEOUT_MS);
    assert_eq!(world.received.len(), 2, "no question waits forever");
}

use std::mem::offset_of;

use cardea_registry_api::Route;

use super::*;
use crate::{
    fixtures::{name, route},
    table::Place,
};

fn entry(host: &str, prefix: &str) -> Arc<RouteEntry> {
    let route: Arc<Route> = Arc::new(route("r", host, prefix, "s"));
    let key = Key::new(&route.host, route.prefix.as_str()).unwrap();
    let place = Place {
        index: 0,
        slot: 0,
        chain: None,
        service: name("s"),
    };
    Arc::new(RouteEntry::new(&route, key, place))
}

/// Hashes can be made to collide by whoever chooses paths and hosts: here, a route lies where the request's
/// own would.
#[test]
fn a_hash_alone_takes_no_request() {
    let asked = entry("h", "/asked").key.clone();
    for (other, found) in [
        (entry("h", "/asked"), true),
        (entry("h", "/other"), false),
        (entry("g", "/asked"), false),
        (entry("*.h", "/asked"), false),
        (entry("h", "/asked/x"), false),
    ] {
        let mut routes = Routes::default();
        routes.entries.set(asked.hash(), other, |_| false);
        routes.know(asked.host_hash(), Some(Host::Depths(1 << asked.bit())));
        let sought = Sought::new(b"h");
        assert_eq!(routes.find(&sought, b"/asked").is_ok(), found);
    }
}

#[test]
fn nor_does_it_where_a_host_has_a_single_route() {
    let asked = entry("h", "/asked").key.clone();
    for (only, found) in [
        (entry("h", "/asked"), true),
        (entry("h", "/"), true),
        (entry("h", "/other"), false),
        (entry("g", "/asked"), false),
        (entry("*.h", "/asked"), false),
        (entry("h", "/asked/x"), false),
    ] {
        let mut routes = Routes::default();
        routes.know(asked.host_hash(), Some(Host::Only(only, 0)));
        let sought = Sought::new(b"h");
        assert_eq!(routes.find(&sought, b"/asked").is_ok(), found);
    }
}

#[test]
fn what_a_request_needs_of_its_route_is_in_two_cache_lines() {
    let used = offset_of!(RouteEntry, label) + size_of::<SmallVec<[u8; 24]>>();
    assert!(used <= 128, "{used}");
    assert_eq!(align_of::<RouteEntry>(), 64);
}

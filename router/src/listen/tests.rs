use proptest::prelude::*;

use super::*;

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn passed(name: &str, listener: &TcpListener) -> Passed {
    Passed {
        name: name.to_owned(),
        socket: listener.try_clone().unwrap().into(),
    }
}

#[test]
fn shares_have_one_address_and_a_taken_port_is_an_error() {
    let shares = shares(LOCAL, 3).unwrap();
    let address = shares[0].local_addr().unwrap();
    assert!(shares.iter().all(|s| s.local_addr().unwrap() == address));
    let error = super::shares(address, 1).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn inherited_shares_are_topped_up_until_the_workers_have_equally_many() {
    for (had, workers, become_) in [(2, 1, 2), (2, 4, 4), (4, 3, 6), (3, 3, 3), (1, 2, 2)] {
        let mut sockets = shares(LOCAL, had).unwrap();
        top_up(&mut sockets, workers);
        assert_eq!(sockets.len(), become_, "{had} for {workers}");
        let hands = deal(&sockets, workers).unwrap();
        assert!(hands.iter().all(|hand| hand.len() == become_ / workers));
    }
}

#[test]
fn sockets_that_cannot_be_shared_out_are_served_by_every_worker() {
    let mut sockets = vec![single(LOCAL).unwrap(), single(LOCAL).unwrap()];
    top_up(&mut sockets, 2);
    assert_eq!(sockets.len(), 2);
    let hands = deal(&sockets, 2).unwrap();
    assert!(hands.iter().all(|hand| hand.len() == 2), "{hands:?}");
}

#[test]
fn inherited_sockets_are_known_by_port_and_must_listen() {
    let (one, two) = (single(LOCAL).unwrap(), single(LOCAL).unwrap());
    let (one_at, two_at) = (one.local_addr().unwrap(), two.local_addr().unwrap());
    let mut inherited =
        Inherited::new(vec![passed("cardea.socket", &one), passed(ADMIN, &two)]).unwrap();
    assert!(
        inherited.take(TRAFFIC, two_at).is_empty(),
        "it is the admin's"
    );
    let everywhere = SocketAddr::from(([0, 0, 0, 0], one_at.port()));
    assert_eq!(inherited.take(TRAFFIC, everywhere).len(), 1);
    assert_eq!(inherited.left(), [two_at]);
    assert_eq!(inherited.take(ADMIN, LOCAL).len(), 1);

    let deaf = socket(LOCAL).unwrap();
    deaf.bind(&LOCAL.into()).unwrap();
    let deaf = Passed {
        name: "traffic".to_owned(),
        socket: deaf.into(),
    };
    assert!(Inherited::new(vec![deaf]).unwrap_err().contains("listen"));
    let stdin = Passed {
        name: "file".to_owned(),
        socket: std::fs::File::open("/dev/null").unwrap().into(),
    };
    assert!(Inherited::new(vec![stdin]).is_err());
}

proptest! {
    #[test]
    fn each_worker_gets_equally_many(have in 0_usize..50, workers in 1_usize..50) {
        let all = have + missing(have, workers);
        prop_assert_eq!(all % workers, 0);
        prop_assert!(all < have + workers);
    }
}

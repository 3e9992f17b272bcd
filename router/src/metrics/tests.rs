use super::*;

fn counted(code: u16, took: Option<Duration>) -> Counted {
    Counted {
        labels: RequestLabels {
            code,
            method: Method::Get,
            protocol: Protocol::Http1,
        },
        took,
        upstream_took: None,
        retries: 1,
    }
}

#[test]
fn workers_are_added_up() {
    let metrics = Metrics::new("default", 2, 10);
    let [id, service] = ["r", "s"].map(|name| name.parse::<Name>().unwrap());
    let route = RouteLabels {
        index: 3,
        route: &id,
        service: &service,
    };
    for worker in 0..2 {
        let local = LocalMetrics::new(metrics.of_worker(worker));
        local.request(
            Some(route),
            None,
            counted(200, Some(Duration::from_millis(3))),
        );
        local.request(None, None, counted(404, None));
        local.upstream_error(route, "reset");
        local.share.connections.add(2);
        local.share.connections.sub(1);
    }
    let mut text = String::new();
    metrics.render(&mut text);
    for line in [
        r#"cardea_router_requests_total{cluster="default",route="r",service="s",code="200",method="GET",protocol="http1"} 2"#,
        r#"cardea_router_requests_total{cluster="default",route="none",service="none",code="404",method="GET",protocol="http1"} 2"#,
        r#"cardea_router_request_duration_seconds_bucket{cluster="default",route="r",service="s",le="0.0025"} 0"#,
        r#"cardea_router_request_duration_seconds_bucket{cluster="default",route="r",service="s",le="0.005"} 2"#,
        r#"cardea_router_request_duration_seconds_count{cluster="default",route="r",service="s"} 2"#,
        r#"cardea_router_retries_total{cluster="default",route="r",service="s"} 2"#,
        r#"cardea_router_upstream_errors_total{cluster="default",route="r",service="s",kind="reset"} 2"#,
        r#"cardea_router_active_connections{protocol="http1"} 2"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

#[test]
fn a_route_given_to_another_service_counts_anew() {
    let metrics = Metrics::new("default", 1, 10);
    let local = LocalMetrics::new(metrics.of_worker(0));
    let id: Name = "r".parse().unwrap();
    // Each service's has its number; and then the first has it again.
    for (index, service) in [(0, "a"), (40, "b"), (0, "a")] {
        let route = RouteLabels {
            index,
            route: &id,
            service: &service.parse().unwrap(),
        };
        local.request(Some(route), None, counted(200, None));
    }
    let mut text = String::new();
    metrics.render(&mut text);
    for (service, count) in [("a", 2), ("b", 1)] {
        let line = format!(
            r#"cardea_router_requests_total{{cluster="default",route="r",service="{service}",code="200",method="GET",protocol="http1"}} {count}"#
        );
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn every_kind_of_request_is_counted_whichever_came_first() {
    let metrics = Metrics::new("default", 2, 10);
    let codes = [200, 404, 502, 204];
    for worker in 0..2 {
        let local = LocalMetrics::new(metrics.of_worker(worker));
        for turn in 0..8 {
            local.request(None, None, counted(codes[(turn + worker) % 4], None));
        }
    }
    let mut text = String::new();
    metrics.render(&mut text);
    for code in codes {
        let line = format!(
            r#"cardea_router_requests_total{{cluster="default",route="none",service="none",code="{code}",method="GET",protocol="http1"}} 4"#
        );
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

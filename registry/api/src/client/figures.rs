//! Live figures: reporting them, and asking for them.

use reqwest::Method;

use super::{Client, ClientError, send::Call};
use crate::{
    Name, Span,
    figures::{By, Report, Taken, Told},
};

/// Which figures to ask for; what is not said is left to the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FiguresQuery {
    /// Only of this service.
    pub service: Option<Name>,
    /// Only of this route.
    pub route: Option<Name>,
    /// By what they are told apart.
    pub by: By,
    /// How far back, at most a day.
    pub window: Option<Span>,
    /// How long each point is.
    pub step: Option<Span>,
}

impl Client {
    /// `POST /v1/clusters/{c}/routers/{id}/figures`: reports what a router counted in one window. Safe
    /// to repeat, also at another registry of the same database.
    pub async fn report_figures(
        &self,
        cluster: &Name,
        router: &str,
        report: &Report,
    ) -> Result<Taken, ClientError> {
        let path = [
            "v1",
            "clusters",
            cluster.as_str(),
            "routers",
            router,
            "figures",
        ];
        self.call(Call::new(Method::POST, &path).json(report)).await
    }

    /// `GET /v1/clusters/{c}/figures`: what the routers of a cluster counted.
    pub async fn figures(&self, cluster: &Name, query: &FiguresQuery) -> Result<Told, ClientError> {
        let call = Call::get(&["v1", "clusters", cluster.as_str(), "figures"])
            .query("service", query.service.as_ref())
            .query("route", query.route.as_ref())
            .query("by", Some(query.by))
            .query("window", query.window)
            .query("step", query.step);
        self.call(call).await
    }
}

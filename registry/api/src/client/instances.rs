//! Instances: what agents and other sources report.

use reqwest::Method;

use super::{Client, ClientError, send::Call};
use crate::{
    Instance, InstanceKey, InstanceState, Name, Span,
    api::{
        BulkRegistration, Deregistered, InstancePatch, Page, Registration, Renewals, Renewed,
        Versioned, Written,
    },
};

/// Which instances to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceQuery {
    /// Only this cluster's.
    pub cluster: Option<Name>,
    /// Only this service's.
    pub service: Option<Name>,
    /// Only those in this (effective) state.
    pub state: Option<InstanceState>,
    /// At most so many.
    pub limit: Option<u32>,
    /// Where the page before said to go on.
    pub cursor: Option<String>,
}

fn path(key: &InstanceKey) -> [&str; 7] {
    [
        "v1",
        "clusters",
        key.cluster.as_str(),
        "services",
        key.service.as_str(),
        "instances",
        key.id.as_str(),
    ]
}

impl Client {
    /// `GET /v1/instances`: one page.
    pub async fn instances(
        &self,
        query: &InstanceQuery,
    ) -> Result<Page<Versioned<Instance>>, ClientError> {
        let call = Call::get(&["v1", "instances"])
            .query("cluster", query.cluster.as_ref())
            .query("service", query.service.as_ref())
            .query("state", query.state.map(InstanceState::as_str))
            .query("limit", query.limit)
            .query("cursor", query.cursor.as_ref());
        self.call(call).await
    }

    /// Every instance that fits, from the query's cursor on.
    pub async fn all_instances(
        &self,
        mut query: InstanceQuery,
    ) -> Result<Vec<Versioned<Instance>>, ClientError> {
        let mut items = Vec::new();
        loop {
            let got = self.instances(&query).await?;
            items.extend(got.items);
            match got.next {
                Some(cursor) => query.cursor = Some(cursor),
                None => return Ok(items),
            }
        }
    }

    /// `GET …/instances/{id}`.
    pub async fn instance(&self, key: &InstanceKey) -> Result<Versioned<Instance>, ClientError> {
        self.call(Call::get(&path(key))).await
    }

    /// `PUT …/instances/{id}`: registers it, or replaces what it reports; renews its lease.
    pub async fn register(
        &self,
        key: &InstanceKey,
        registration: &Registration,
    ) -> Result<Written, ClientError> {
        self.call(Call::new(Method::PUT, &path(key)).json(registration))
            .await
    }

    /// `POST /v1/registrations`: many at once, all or none.
    pub async fn register_many(&self, many: &BulkRegistration) -> Result<Written, ClientError> {
        self.call(Call::new(Method::POST, &["v1", "registrations"]).json(many))
            .await
    }

    /// `POST …/instances/{id}/renew`. Not found: register again.
    pub async fn renew(&self, key: &InstanceKey) -> Result<Renewed, ClientError> {
        let path: Vec<&str> = path(key).into_iter().chain(["renew"]).collect();
        self.call(Call::new(Method::POST, &path)).await
    }

    /// `POST /v1/renewals`: many at once; the answer names those to register again.
    pub async fn renew_many(&self, many: &Renewals) -> Result<Renewed, ClientError> {
        self.call(Call::new(Method::POST, &["v1", "renewals"]).json(many))
            .await
    }

    /// `PATCH …/instances/{id}`.
    pub async fn patch_instance(
        &self,
        key: &InstanceKey,
        patch: &InstancePatch,
    ) -> Result<Written, ClientError> {
        self.call(Call::new(Method::PATCH, &path(key)).json(patch))
            .await
    }

    /// `DELETE …/instances/{id}?wait=`: takes it out, and waits at most `wait` until every live
    /// router has let go. What is not there is deregistered already (`found` is false).
    pub async fn deregister(
        &self,
        key: &InstanceKey,
        wait: Span,
    ) -> Result<Deregistered, ClientError> {
        let mut call = Call::new(Method::DELETE, &path(key))
            .query("wait", (wait > Span::secs(0)).then_some(wait));
        call.wait = wait;
        self.call(call).await
    }
}

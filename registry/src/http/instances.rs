//! Reading instances.

use std::str::FromStr;

use axum::{extract::State, response::Response};
use cardea_registry_api::{
    Instance, InstanceId, InstanceKey, InstanceState, Name,
    api::{Page, Versioned},
};
use serde::Deserialize;

use super::{
    Api,
    extract::{Key, Params},
    objects,
    openapi::{Reading, ReadingOne},
    page::{PageWriter, Wanted},
    problem::ApiError,
};
use crate::{
    auth::scope::{Caller, ReadsInstances},
    change::Kind,
    state::State as Everything,
};

/// An effective state to filter by.
struct Wish(InstanceState);

impl FromStr for Wish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wire = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
        InstanceState::deserialize(wire)
            .map(Self)
            .map_err(|_| format!("`{text}` is no state: starting, up, draining or disabled"))
    }
}

/// Lists instances by cluster, service and id. A token bound to services has to name one of them.
#[utoipa::path(get, path = "/v1/instances", operation_id = "list_instances", tag = "instances",
    params(
        ("cluster" = Option<Name>, Query, description = "Only of this cluster."),
        ("service" = Option<Name>, Query, description = "Only of this service."),
        ("state" = Option<InstanceState>, Query, description = "Only in this effective state."),
        ("limit" = Option<u32>, Query, description = "At most so many, 1–1000; default 100."),
        ("cursor" = Option<String>, Query, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "A page.", body = Page<Versioned<Instance>>), Reading))]
pub(super) async fn list(
    caller: Caller<ReadsInstances>,
    State(app): Api,
    mut params: Params,
) -> Result<Response, ApiError> {
    let filter = Filter {
        cluster: params.take("cluster"),
        service: params.take("service"),
        state: params.take("state").map(|Wish(state)| state),
    };
    let wanted = Wanted::take(&mut params);
    params.finish()?;
    match &filter.service {
        Some(service) => caller.covers(service)?,
        None if caller.covers_all() => {}
        None => {
            return Err(ApiError::invalid(
                "service",
                "this token is bound to services: name one of them",
            ));
        }
    }
    Ok(filter.page(&app.core.state(), &wanted))
}

struct Filter {
    cluster: Option<Name>,
    service: Option<Name>,
    state: Option<InstanceState>,
}

impl Filter {
    fn page(&self, state: &Everything, wanted: &Wanted<InstanceKey>) -> Response {
        let mut page = PageWriter::new(wanted.limit);
        let mut add = |stored: &crate::state::Stored<Instance>| {
            page.versioned(stored.object.key(), stored.revision, stored.json())
        };
        match (&self.cluster, &wanted.after) {
            (Some(cluster), None) => state
                .instances_in(cluster, self.service.as_ref())
                .filter(|stored| self.fits(&stored.object))
                .all(|stored| add(stored)),
            (cluster, after) => state
                .instances(after.as_ref())
                // They are ordered by cluster first.
                .take_while(|stored| {
                    cluster
                        .as_ref()
                        .is_none_or(|cluster| stored.object.cluster <= *cluster)
                })
                .filter(|stored| self.fits(&stored.object))
                .all(|stored| add(stored)),
        };
        page.finish()
    }

    fn fits(&self, instance: &Instance) -> bool {
        self.cluster.as_ref().is_none_or(|c| instance.cluster == *c)
            && self.service.as_ref().is_none_or(|s| instance.service == *s)
            && self.state.is_none_or(|s| instance.effective_state() == s)
    }
}

/// One instance.
#[utoipa::path(get, path = "/v1/clusters/{cluster}/services/{service}/instances/{id}",
    operation_id = "get_instance", tag = "instances",
    params(
        ("cluster" = Name, Path, description = "Its cluster."),
        ("service" = Name, Path, description = "Its service."),
        ("id" = InstanceId, Path, description = "Its id."),
    ),
    responses(
        (status = 200, description = "The instance; its ETag is its revision.", body = Versioned<Instance>),
        ReadingOne,
    ))]
pub(super) async fn get(
    caller: Caller<ReadsInstances>,
    State(app): Api,
    Key(key): Key<InstanceKey>,
    params: Params,
) -> Result<Response, ApiError> {
    params.finish()?;
    caller.covers(&key.service)?;
    objects::one(app.core.state().instance(&key), Kind::Instance, &key)
}

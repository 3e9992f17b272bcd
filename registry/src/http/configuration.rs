//! The kinds of configuration objects, each with the same four calls: list, get, put, delete.
//!
//! The calls are written once, over [`Configured`]. What a kind adds is that trait and the words of
//! its documentation, which `utoipa` wants as literals: hence the macro.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use cardea_registry_api::{
    Certificate, Cluster, Fallback, Name, Plugin, Route, Service,
    api::{Page, Versioned, Written},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, App,
    extract::{Input, Key, MAX_BODY, MAX_BULK, Params},
    objects,
    openapi::{Deleting, Putting, Reading, ReadingOne},
    page::Wanted,
    precondition::IfMatch,
    problem::ApiError,
};
use crate::{
    auth::scope::{Caller, Reads, Writes},
    change::{Change, Expected, Kind},
    state::{State as Everything, Stored},
};

/// All their calls, with documentation.
pub(super) fn calls() -> OpenApiRouter<Arc<App>> {
    clusters::calls()
        .merge(services::calls())
        .merge(routes::calls())
        .merge(certificates::calls())
        .merge(plugins::calls())
}

/// A kind of object that is put and deleted as a whole, under a name of its own.
pub(super) trait Configured: Sized + 'static {
    /// As it is called.
    const KIND: Kind;
    /// The field with its name.
    const FIELD: &'static str;
    /// The most bytes that a body with one may have.
    const MOST: usize = MAX_BODY;

    fn name(&self) -> &Name;
    fn find<'a>(state: &'a Everything, name: &str) -> Option<&'a Arc<Stored<Self>>>;
    fn behind<'a>(
        state: &'a Everything,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &'a Arc<Stored<Self>>>;
    fn put(self, expected: Expected) -> Change;
    fn delete(name: Name, expected: Expected) -> Change;
}

impl Configured for Cluster {
    const KIND: Kind = Kind::Cluster;
    const FIELD: &'static str = "name";

    fn name(&self) -> &Name {
        &self.name
    }

    fn find<'a>(state: &'a Everything, name: &str) -> Option<&'a Arc<Stored<Self>>> {
        state.cluster(name)
    }

    fn behind<'a>(
        state: &'a Everything,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &'a Arc<Stored<Self>>> {
        state.clusters(after)
    }

    fn put(self, expected: Expected) -> Change {
        Change::PutCluster {
            cluster: self,
            expected,
        }
    }

    fn delete(name: Name, expected: Expected) -> Change {
        Change::DeleteCluster { name, expected }
    }
}

impl Configured for Service {
    const KIND: Kind = Kind::Service;
    const FIELD: &'static str = "name";

    fn name(&self) -> &Name {
        &self.name
    }

    fn find<'a>(state: &'a Everything, name: &str) -> Option<&'a Arc<Stored<Self>>> {
        state.service(name)
    }

    fn behind<'a>(
        state: &'a Everything,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &'a Arc<Stored<Self>>> {
        state.services(after)
    }

    fn put(self, expected: Expected) -> Change {
        Change::PutService {
            service: Box::new(self),
            expected,
        }
    }

    fn delete(name: Name, expected: Expected) -> Change {
        Change::DeleteService { name, expected }
    }
}

impl Configured for Route {
    const KIND: Kind = Kind::Route;
    const FIELD: &'static str = "id";

    fn name(&self) -> &Name {
        &self.id
    }

    fn find<'a>(state: &'a Everything, name: &str) -> Option<&'a Arc<Stored<Self>>> {
        state.route(name)
    }

    fn behind<'a>(
        state: &'a Everything,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &'a Arc<Stored<Self>>> {
        state.routes(after)
    }

    fn put(self, expected: Expected) -> Change {
        Change::PutRoute {
            route: self,
            expected,
        }
    }

    fn delete(id: Name, expected: Expected) -> Change {
        Change::DeleteRoute { id, expected }
    }
}

impl Configured for Certificate {
    const KIND: Kind = Kind::Certificate;
    const FIELD: &'static str = "name";

    fn name(&self) -> &Name {
        &self.name
    }

    fn find<'a>(state: &'a Everything, name: &str) -> Option<&'a Arc<Stored<Self>>> {
        state.certificate(name)
    }

    fn behind<'a>(
        state: &'a Everything,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &'a Arc<Stored<Self>>> {
        state.certificates(after)
    }

    fn put(self, expected: Expected) -> Change {
        Change::PutCertificate {
            certificate: Box::new(self),
            expected,
        }
    }

    fn delete(name: Name, expected: Expected) -> Change {
        Change::DeleteCertificate { name, expected }
    }
}

impl Configured for Plugin {
    const KIND: Kind = Kind::Plugin;
    const FIELD: &'static str = "name";
    /// It may have a list of 100,000 users.
    const MOST: usize = MAX_BULK;

    fn name(&self) -> &Name {
        &self.name
    }

    fn find<'a>(state: &'a Everything, name: &str) -> Option<&'a Arc<Stored<Self>>> {
        state.plugin(name)
    }

    fn behind<'a>(
        state: &'a Everything,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &'a Arc<Stored<Self>>> {
        state.plugins(after)
    }

    fn put(self, expected: Expected) -> Change {
        Change::PutPlugin {
            plugin: Box::new(self),
            expected,
        }
    }

    fn delete(name: Name, expected: Expected) -> Change {
        Change::DeletePlugin { name, expected }
    }
}

impl Configured for Fallback {
    const KIND: Kind = Kind::Fallback;
    const FIELD: &'static str = "name";

    fn name(&self) -> &Name {
        &self.name
    }

    fn find<'a>(state: &'a Everything, name: &str) -> Option<&'a Arc<Stored<Self>>> {
        state.fallback(name)
    }

    fn behind<'a>(
        state: &'a Everything,
        after: Option<&Name>,
    ) -> impl Iterator<Item = &'a Arc<Stored<Self>>> {
        state.fallbacks(after)
    }

    fn put(self, expected: Expected) -> Change {
        Change::PutFallback {
            fallback: self,
            expected,
        }
    }

    fn delete(name: Name, expected: Expected) -> Change {
        Change::DeleteFallback { name, expected }
    }
}

fn list<T: Configured>(app: &App, mut params: Params) -> Result<Response, ApiError> {
    let wanted = Wanted::take(&mut params);
    params.finish()?;
    let state = app.core.state();
    let behind = T::behind(&state, wanted.after.as_ref());
    Ok(objects::list(&wanted, behind, T::KIND, T::name))
}

pub(super) fn get<T: Configured>(
    app: &App,
    name: &Name,
    params: Params,
) -> Result<Response, ApiError> {
    params.finish()?;
    let state = app.core.state();
    objects::one(T::find(&state, name.as_str()), T::KIND, name)
}

pub(super) async fn put<T: Configured>(
    app: &App,
    caller: &Caller<Writes>,
    (name, expected): (Name, Expected),
    params: Params,
    object: T,
) -> Result<Response, ApiError> {
    params.finish()?;
    same_name(T::FIELD, &name, object.name())?;
    objects::write(app, caller, object.put(expected)).await
}

pub(super) async fn delete<T: Configured>(
    app: &App,
    caller: &Caller<Writes>,
    (name, expected): (Name, Expected),
    params: Params,
) -> Result<Response, ApiError> {
    params.finish()?;
    objects::write(app, caller, T::delete(name, expected)).await
}

/// The name in the path is the one that counts; another one in the body is a mistake.
fn same_name(field: &str, path: &Name, body: &Name) -> Result<(), ApiError> {
    if path == body {
        return Ok(());
    }
    Err(ApiError::invalid(
        field,
        format!("the path says `{path}`, the body `{body}`: make them the same"),
    ))
}

/// The calls on one kind: its path, its name in it, and each call's id and words.
macro_rules! calls {
    (
        $module:ident, $Object:ident: $all:tt, $one:tt, $param:tt $says:tt;
        $(#[$($list:tt)*])+ list $list_id:tt;
        $(#[$($get:tt)*])+ get $get_id:tt $get_says:tt;
        $(#[$($put:tt)*])+ put $put_id:tt;
        $(#[$($delete:tt)*])+ delete $delete_id:tt;
    ) => {
        mod $module {
            use super::*;

            pub(super) fn calls() -> OpenApiRouter<Arc<App>> {
                OpenApiRouter::new()
                    .routes(routes!(list))
                    .routes(routes!(get, put, delete))
            }

            $(#[$($list)*])+
            #[utoipa::path(get, path = $all, operation_id = $list_id, tag = "configuration",
                params(
                    ("limit" = Option<u32>, Query, description = "At most so many, 1–1000; default 100."),
                    ("cursor" = Option<String>, Query, description = "`next` of the page before."),
                ),
                responses((status = 200, description = "A page.", body = Page<Versioned<$Object>>), Reading))]
            async fn list(
                _: Caller<Reads>,
                State(app): Api,
                params: Params,
            ) -> Result<Response, ApiError> {
                super::list::<$Object>(&app, params)
            }

            $(#[$($get)*])+
            #[utoipa::path(get, path = $one, operation_id = $get_id, tag = "configuration",
                params(($param = Name, Path, description = $says)),
                responses(
                    (status = 200, description = $get_says, body = Versioned<$Object>),
                    ReadingOne,
                ))]
            async fn get(
                _: Caller<Reads>,
                State(app): Api,
                Key(name): Key<Name>,
                params: Params,
            ) -> Result<Response, ApiError> {
                super::get::<$Object>(&app, &name, params)
            }

            $(#[$($put)*])+
            #[utoipa::path(put, path = $one, operation_id = $put_id, tag = "configuration",
                params(
                    ($param = Name, Path, description = $says),
                    ("If-Match" = Option<String>, Header,
                        description = "The ETag of what is replaced, or `*`; none when it is created."),
                ),
                request_body = $Object,
                responses((status = 200, description = "It is so now.", body = Written), Putting))]
            async fn put(
                caller: Caller<Writes>,
                State(app): Api,
                Key(name): Key<Name>,
                IfMatch(expected): IfMatch,
                params: Params,
                Input(object): Input<$Object, { <$Object as Configured>::MOST }>,
            ) -> Result<Response, ApiError> {
                super::put(&app, &caller, (name, expected), params, object).await
            }

            $(#[$($delete)*])+
            #[utoipa::path(delete, path = $one, operation_id = $delete_id, tag = "configuration",
                params(
                    ($param = Name, Path, description = $says),
                    ("If-Match" = String, Header, description = "The ETag of what is deleted, or `*`."),
                ),
                responses((status = 200, description = "It is gone.", body = Written), Deleting))]
            async fn delete(
                caller: Caller<Writes>,
                State(app): Api,
                Key(name): Key<Name>,
                IfMatch(expected): IfMatch,
                params: Params,
            ) -> Result<Response, ApiError> {
                super::delete::<$Object>(&app, &caller, (name, expected), params).await
            }
        }
    };
}

calls! {
    clusters, Cluster: "/v1/clusters", "/v1/clusters/{cluster}", "cluster" "Its name.";
    /// Lists the clusters by name.
    list "list_clusters";
    /// One cluster.
    get "get_cluster" "The cluster; its ETag is its revision.";
    /// Creates a cluster, or replaces it: then `If-Match` says which revision the caller saw.
    put "put_cluster";
    /// Deletes a cluster that has no instances.
    delete "delete_cluster";
}

calls! {
    services, Service: "/v1/services", "/v1/services/{service}", "service" "Its name.";
    /// Lists the services by name.
    list "list_services";
    /// One service.
    get "get_service" "The service; its ETag is its revision.";
    /// Creates a service, or replaces it: then `If-Match` says which revision the caller saw.
    put "put_service";
    /// Deletes a service that has no routes and no instances.
    delete "delete_service";
}

calls! {
    routes, Route: "/v1/routes", "/v1/routes/{id}", "id" "Its id.";
    /// Lists the routes by id.
    list "list_routes";
    /// One route.
    get "get_route" "The route; its ETag is its revision.";
    /// Creates a route, or replaces it: then `If-Match` says which revision the caller saw.
    put "put_route";
    /// Deletes a route.
    delete "delete_route";
}

calls! {
    certificates, Certificate: "/v1/certificates", "/v1/certificates/{certificate}",
        "certificate" "Its name.";
    /// Lists the certificates by name, without their keys.
    list "list_certificates";
    /// One certificate, without its key.
    get "get_certificate" "The certificate; its ETag is its revision.";
    /// Creates a certificate, or replaces it: then `If-Match` says which revision the caller saw. One that
    /// comes without its key keeps the key it has, if that still fits.
    put "put_certificate";
    /// Deletes a certificate: routers serve it no more.
    delete "delete_certificate";
}

calls! {
    plugins, Plugin: "/v1/plugins", "/v1/plugins/{plugin}", "plugin" "Its name.";
    /// Lists the plugins by name.
    list "list_plugins";
    /// One plugin.
    get "get_plugin" "The plugin; its ETag is its revision.";
    /// Creates a plugin, or replaces it: then `If-Match` says which revision the caller saw. What it is
    /// bound to and what it names must exist.
    put "put_plugin";
    /// Deletes a plugin: its requests are served as if it had never been.
    delete "delete_plugin";
}

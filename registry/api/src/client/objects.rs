//! Clusters, services, routes, certificates, plugins and stored bodies: what operators write.

use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};

use super::{Client, ClientError, send::Call};
use crate::{
    Certificate, Cluster, Fallback, Name, Plugin, Route, Service, Traffic, TrafficKey,
    api::{Applied, ApplyRequest, KindSchema, Page, Versioned, Written},
    fallback::FallbackInfo,
};

/// What must hold for a write to be done (`If-Match`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing is said: right for objects that are to be created.
    None,
    /// The object is still at this revision.
    Revision(u64),
    /// Whatever is there.
    Any,
}

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PageQuery {
    /// At most so many; none: as the registry likes.
    pub limit: Option<u32>,
    /// Where the page before said to go on.
    pub cursor: Option<String>,
}

impl Client {
    /// `GET /v1/clusters`: one page.
    pub async fn clusters(
        &self,
        page: &PageQuery,
    ) -> Result<Page<Versioned<Cluster>>, ClientError> {
        self.list(&["clusters"], page).await
    }

    /// Every cluster.
    pub async fn all_clusters(&self) -> Result<Vec<Versioned<Cluster>>, ClientError> {
        self.list_all(&["clusters"]).await
    }

    /// `GET /v1/clusters/{name}`.
    pub async fn cluster(&self, name: &Name) -> Result<Versioned<Cluster>, ClientError> {
        self.call(Call::get(&["v1", "clusters", name.as_str()]))
            .await
    }

    /// `PUT /v1/clusters/{name}`.
    pub async fn put_cluster(
        &self,
        cluster: &Cluster,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        self.put(&["clusters", cluster.name.as_str()], cluster, if_match)
            .await
    }

    /// `DELETE /v1/clusters/{name}`.
    pub async fn delete_cluster(
        &self,
        name: &Name,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        self.delete(&["clusters", name.as_str()], if_match).await
    }

    /// `GET /v1/services`: one page.
    pub async fn services(
        &self,
        page: &PageQuery,
    ) -> Result<Page<Versioned<Service>>, ClientError> {
        self.list(&["services"], page).await
    }

    /// Every service.
    pub async fn all_services(&self) -> Result<Vec<Versioned<Service>>, ClientError> {
        self.list_all(&["services"]).await
    }

    /// `GET /v1/services/{name}`.
    pub async fn service(&self, name: &Name) -> Result<Versioned<Service>, ClientError> {
        self.call(Call::get(&["v1", "services", name.as_str()]))
            .await
    }

    /// `PUT /v1/services/{name}`.
    pub async fn put_service(
        &self,
        service: &Service,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        self.put(&["services", service.name.as_str()], service, if_match)
            .await
    }

    /// `DELETE /v1/services/{name}`.
    pub async fn delete_service(
        &self,
        name: &Name,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        self.delete(&["services", name.as_str()], if_match).await
    }

    /// `GET /v1/routes`: one page.
    pub async fn routes(&self, page: &PageQuery) -> Result<Page<Versioned<Route>>, ClientError> {
        self.list(&["routes"], page).await
    }

    /// Every route.
    pub async fn all_routes(&self) -> Result<Vec<Versioned<Route>>, ClientError> {
        self.list_all(&["routes"]).await
    }

    /// `GET /v1/routes/{id}`.
    pub async fn route(&self, id: &Name) -> Result<Versioned<Route>, ClientError> {
        self.call(Call::get(&["v1", "routes", id.as_str()])).await
    }

    /// `PUT /v1/routes/{id}`.
    pub async fn put_route(
        &self,
        route: &Route,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        self.put(&["routes", route.id.as_str()], route, if_match)
            .await
    }

    /// `DELETE /v1/routes/{id}`.
    pub async fn delete_route(
        &self,
        id: &Name,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        self.delete(&["routes", id.as_str()], if_match).await
    }

    /// `GET /v1/certificates`: one page, without keys.
    pub async fn certificates(
        &self,
        page: &PageQuery,
    ) -> Result<Page<Versioned<Certificate>>, ClientError> {
        self.list(&["certificates"], page).await
    }

    /// Every certificate, without its key.
    pub async fn all_certificates(&self) -> Result<Vec<Versioned<Certificate>>, ClientError> {
        self.list_all(&["certificates"]).await
    }

    /// `GET /v1/certificates/{name}`, without its key.
    pub async fn certificate(&self, name: &Name) -> Result<Versioned<Certificate>, ClientError> {
        let call = Call::get(&["v1", "certificates", name.as_str()]);
        self.call(call).await
    }

    /// `PUT /v1/certificates/{name}`. Without its key, it keeps the one it has.
    pub async fn put_certificate(
        &self,
        certificate: &Certificate,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        let path = ["certificates", certificate.name.as_str()];
        self.put(&path, certificate, if_match).await
    }

    /// `DELETE /v1/certificates/{name}`.
    pub async fn delete_certificate(
        &self,
        name: &Name,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        let path = ["certificates", name.as_str()];
        self.delete(&path, if_match).await
    }

    /// `GET /v1/plugins`: one page.
    pub async fn plugins(&self, page: &PageQuery) -> Result<Page<Versioned<Plugin>>, ClientError> {
        self.list(&["plugins"], page).await
    }

    /// Every plugin.
    pub async fn all_plugins(&self) -> Result<Vec<Versioned<Plugin>>, ClientError> {
        self.list_all(&["plugins"]).await
    }

    /// `GET /v1/plugins/{name}`.
    pub async fn plugin(&self, name: &Name) -> Result<Versioned<Plugin>, ClientError> {
        let call = Call::get(&["v1", "plugins", name.as_str()]);
        self.call(call).await
    }

    /// `PUT /v1/plugins/{name}`.
    pub async fn put_plugin(
        &self,
        plugin: &Plugin,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        let path = ["plugins", plugin.name.as_str()];
        self.put(&path, plugin, if_match).await
    }

    /// `DELETE /v1/plugins/{name}`.
    pub async fn delete_plugin(
        &self,
        name: &Name,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        let path = ["plugins", name.as_str()];
        self.delete(&path, if_match).await
    }

    /// `GET /v1/fallbacks`: one page, without bodies.
    pub async fn fallbacks(
        &self,
        page: &PageQuery,
    ) -> Result<Page<Versioned<FallbackInfo>>, ClientError> {
        self.list(&["fallbacks"], page).await
    }

    /// Every fallback, without its body.
    pub async fn all_fallbacks(&self) -> Result<Vec<Versioned<FallbackInfo>>, ClientError> {
        self.list_all(&["fallbacks"]).await
    }

    /// `GET /v1/fallbacks/{name}`.
    pub async fn fallback(&self, name: &Name) -> Result<Versioned<Fallback>, ClientError> {
        let call = Call::get(&["v1", "fallbacks", name.as_str()]);
        self.call(call).await
    }

    /// `PUT /v1/fallbacks/{name}`.
    pub async fn put_fallback(
        &self,
        fallback: &Fallback,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        let path = ["fallbacks", fallback.name.as_str()];
        self.put(&path, fallback, if_match).await
    }

    /// `DELETE /v1/fallbacks/{name}`.
    pub async fn delete_fallback(
        &self,
        name: &Name,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        let path = ["fallbacks", name.as_str()];
        self.delete(&path, if_match).await
    }

    /// `GET /v1/traffic`: one page.
    pub async fn traffics(
        &self,
        page: &PageQuery,
    ) -> Result<Page<Versioned<Traffic>>, ClientError> {
        self.list(&["traffic"], page).await
    }

    /// Where every cluster's requests go.
    pub async fn all_traffic(&self) -> Result<Vec<Versioned<Traffic>>, ClientError> {
        self.list_all(&["traffic"]).await
    }

    /// `GET /v1/clusters/{c}/traffic` or `/v1/clusters/{c}/services/{s}/traffic`.
    pub async fn traffic(&self, key: &TrafficKey) -> Result<Versioned<Traffic>, ClientError> {
        let path: Vec<&str> = ["v1"].into_iter().chain(traffic_path(key)).collect();
        self.call(Call::get(&path)).await
    }

    /// `PUT` to the same path.
    pub async fn put_traffic(
        &self,
        traffic: &Traffic,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        let key = traffic.key();
        self.put(&traffic_path(&key), traffic, if_match).await
    }

    /// `DELETE` of the same path: requests stay in their cluster, or go where the broader object says.
    pub async fn delete_traffic(
        &self,
        key: &TrafficKey,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        self.delete(&traffic_path(key), if_match).await
    }

    /// `GET /v1/plugins/schemas`: what plugins of each kind may say, in the order of their stages.
    pub async fn plugin_schemas(&self) -> Result<Vec<KindSchema>, ClientError> {
        let got: Page<KindSchema> = self.call(Call::get(&["v1", "plugins", "schemas"])).await?;
        Ok(got.items)
    }

    /// `GET /v1/plugins/schemas/{kind}`: JSON Schema.
    pub async fn plugin_schema(&self, kind: &str) -> Result<serde_json::Value, ClientError> {
        self.call(Call::get(&["v1", "plugins", "schemas", kind]))
            .await
    }

    /// `POST /v1/apply[?dry_run=true]`: all of it, or nothing.
    pub async fn apply(
        &self,
        request: &ApplyRequest,
        dry_run: bool,
    ) -> Result<Applied, ClientError> {
        let call = Call::new(Method::POST, &["v1", "apply"])
            .query("dry_run", dry_run.then_some(true))
            .json(request);
        self.call(call).await
    }

    async fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        page: &PageQuery,
    ) -> Result<Page<T>, ClientError> {
        let path: Vec<&str> = ["v1"].iter().chain(path).copied().collect();
        let call = Call::get(&path)
            .query("limit", page.limit)
            .query("cursor", page.cursor.as_ref());
        self.call(call).await
    }

    async fn list_all<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        let mut page = PageQuery::default();
        loop {
            let got: Page<T> = self.list(path, &page).await?;
            items.extend(got.items);
            match got.next {
                Some(cursor) => page.cursor = Some(cursor),
                None => return Ok(items),
            }
        }
    }

    async fn put<T: Serialize>(
        &self,
        path: &[&str],
        object: &T,
        if_match: Precondition,
    ) -> Result<Written, ClientError> {
        let path: Vec<&str> = ["v1"].iter().chain(path).copied().collect();
        let call = Call::new(Method::PUT, &path)
            .json(object)
            .precondition(if_match);
        self.call(call).await
    }

    async fn delete(&self, path: &[&str], if_match: Precondition) -> Result<Written, ClientError> {
        let path: Vec<&str> = ["v1"].iter().chain(path).copied().collect();
        self.call(Call::new(Method::DELETE, &path).precondition(if_match))
            .await
    }
}

pub(super) fn traffic_path(key: &TrafficKey) -> Vec<&str> {
    let mut path = vec!["clusters", key.cluster.as_str()];
    if let Some(service) = &key.service {
        path.extend(["services", service.as_str()]);
    }
    path.push("traffic");
    path
}

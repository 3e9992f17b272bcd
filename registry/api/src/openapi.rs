//! `OpenAPI` schemas of enums that are written as texts.

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type},
};

use crate::{Address, policy::Balance, route::HostPattern};

fn text(description: &str, example: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(description))
        .examples([serde_json::json!(example)])
}

impl PartialSchema for HostPattern {
    fn schema() -> RefOr<Schema> {
        text(
            "A host, `*.suffix` or `*`; lower case, without port.",
            "*.svc.local",
        )
        .into()
    }
}

impl ToSchema for HostPattern {}

impl PartialSchema for Address {
    fn schema() -> RefOr<Schema> {
        text("`host:port`; an IPv6 address in brackets.", "10.0.0.1:9001").into()
    }
}

impl ToSchema for Address {}

impl PartialSchema for Balance {
    fn schema() -> RefOr<Schema> {
        let hash = ObjectBuilder::new()
            .property(
                "hash",
                text(
                    "header:NAME, cookie:NAME, query:NAME, client or path",
                    "header:x-user",
                ),
            )
            .required("hash");
        let named = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(["round-robin", "least-loaded"]));
        OneOfBuilder::new()
            .item(named)
            .item(hash)
            .description(Some("How a peer is picked."))
            .into()
    }
}

impl ToSchema for Balance {}

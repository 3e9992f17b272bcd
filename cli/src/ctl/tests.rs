use cardea_registry_api::{FieldError, Invalid, Problem, problem::Code};

use super::*;

#[test]
fn problems_are_printed_with_fields_and_request_id() {
    let mut problem = Problem::from(Invalid {
        errors: vec![
            FieldError {
                field: "services[0].retries.attempts".to_owned(),
                message: "at most 10".to_owned(),
            },
            FieldError {
                field: String::new(),
                message: "too many objects".to_owned(),
            },
        ],
    });
    problem.request_id = "01J9".to_owned();
    insta::assert_snapshot!(describe(&problem));
    let unknown = Problem::new(Code::Unauthenticated, "no token was sent");
    insta::assert_snapshot!(describe(&unknown));
}

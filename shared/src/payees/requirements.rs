//! What Stripe wants of an account's owner, in words for them. Stripe's names are an open set: one that is not known here gets
//! words made from itself. Pure.

use serde::Serialize;
use utoipa::ToSchema;

use crate::rails::stripe::Requirements;

/// One thing to do at Stripe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Want {
    /// Stripe's names of what it wants.
    #[schema(example = json!(["individual.dob.day", "individual.dob.month"]))]
    pub fields: Vec<String>,
    /// Payouts are closed until it is done.
    pub overdue: bool,
    #[schema(example = "Give the date of birth.")]
    pub sentence: String,
}

/// What is to be done, what is overdue first; things that are one to a person are one.
pub fn wants(requirements: &Requirements) -> Vec<Want> {
    let (overdue, due) = (requirements.past_due.as_deref(), requirements.currently_due.as_deref());
    let (overdue, due) = (overdue.unwrap_or_default(), due.unwrap_or_default());
    let all = overdue.iter().map(|field| (field, true));
    let all = all.chain(due.iter().filter(|field| !overdue.contains(field)).map(|field| (field, false)));
    let mut wants: Vec<Want> = Vec::new();
    for (field, overdue) in all {
        let sentence = sentence(field);
        match wants.iter_mut().find(|want| want.sentence == sentence) {
            Some(want) => want.fields.push(field.clone()),
            None => wants.push(Want { fields: vec![field.clone()], overdue, sentence }),
        }
    }
    wants
}

/// Part of Stripe's name for a thing, and what to do about it. The first that fits counts.
const SENTENCES: [(&str, &str); 22] = [
    ("external_account", "Add a bank account for payouts."),
    ("tos_acceptance", "Accept Stripe's terms of service."),
    ("verification.additional_document", "Upload a second document that shows the address."),
    ("verification.document", "Upload a photo of an identity document."),
    ("verification.proof_of_liveness", "Prove with the camera that it is you."),
    ("proof_of_liveness", "Prove with the camera that it is you."),
    ("ssn_last_4", "Give the last four digits of the social security number."),
    ("id_number", "Give the personal identity or tax number."),
    ("tax_id", "Give the business's tax number."),
    ("vat_id", "Give the business's VAT number."),
    (".dob.", "Give the date of birth."),
    (".address", "Give the full address."),
    ("support_phone", "Give a phone number at which customers are helped."),
    (".phone", "Give a phone number."),
    (".email", "Give an email address."),
    ("first_name", "Give the full name as it is on official papers."),
    ("last_name", "Give the full name as it is on official papers."),
    ("business_profile.mcc", "Say what kind of business it is."),
    ("business_profile.url", "Give a web page, or describe what is offered."),
    ("business_profile.product_description", "Give a web page, or describe what is offered."),
    ("business_type", "Say whether it is a person or a company."),
    ("company.name", "Give the company's legal name."),
];

fn sentence(field: &str) -> String {
    let known = SENTENCES.iter().find(|(part, _)| field.contains(part)).map(|(_, sentence)| *sentence);
    let made = || {
        let of = field.rsplit('.').next().unwrap_or(field).replace('_', " ");
        format!("Give Stripe what it asks for: {of}.")
    };
    known.map_or_else(made, str::to_owned)
}

/// Why an account is closed, in words; `None`: it is not. <https://docs.stripe.com/api/accounts/object#account_object-requirements-disabled_reason>
pub fn why_closed(requirements: &Requirements) -> Option<&'static str> {
    let reason = requirements.disabled_reason.as_deref()?;
    Some(match reason {
        "requirements.past_due" | "action_required.requested_capabilities" => {
            "Stripe needs more information before it can pay out."
        }
        "requirements.pending_verification" => "Stripe is checking what was given; it takes some minutes to some days.",
        "under_review" | "listed" => "Stripe is reviewing the account; nothing can be done until it has decided.",
        "platform_paused" => "The platform has paused the account; ask its support.",
        rejected if rejected.starts_with("rejected.") => "Stripe has closed the account for good; ask the platform's support.",
        _ => "Stripe has closed the account for now; ask the platform's support.",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requirements(past_due: &[&str], currently_due: &[&str], disabled_reason: Option<&str>) -> Requirements {
        let owned = |fields: &[&str]| Some(fields.iter().map(|field| (*field).to_owned()).collect());
        Requirements {
            past_due: owned(past_due),
            currently_due: owned(currently_due),
            disabled_reason: disabled_reason.map(str::to_owned),
            ..Requirements::default()
        }
    }

    #[test]
    fn what_is_wanted_is_said_once_in_words_and_what_is_overdue_first() {
        let wanted = requirements(
            &["individual.verification.document"],
            &[
                "individual.dob.day",
                "individual.dob.month",
                "individual.verification.document",
                "external_account",
                "person_1AbC.relationship.title",
                "a_field_of_next_year",
            ],
            None,
        );
        let lines: Vec<String> =
            wants(&wanted).iter().map(|want| format!("{} {} {}", want.overdue, want.fields.len(), want.sentence)).collect();
        assert_eq!(
            lines,
            [
                "true 1 Upload a photo of an identity document.",
                "false 2 Give the date of birth.",
                "false 1 Add a bank account for payouts.",
                "false 1 Give Stripe what it asks for: title.",
                "false 1 Give Stripe what it asks for: a field of next year.",
            ]
        );
        assert_eq!(wants(&Requirements::default()), []);
    }

    #[test]
    fn every_reason_has_words_also_one_that_is_not_known() {
        for reason in ["requirements.past_due", "rejected.fraud", "under_review", "a reason of next year"] {
            assert!(why_closed(&requirements(&[], &[], Some(reason))).is_some_and(|words| words.ends_with('.')), "{reason}");
        }
        assert_eq!(why_closed(&requirements(&[], &[], None)), None);
    }
}

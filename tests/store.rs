//! The library's SQL on real Postgres, each test in a database of its own. In reading order: the schema, where money comes
//! from, who is paid, how it is sent, what Stripe tells afterwards, and the pooler in front of it all.

mod store {
    mod answers;
    mod audit;
    mod batches;
    mod by_hand;
    mod checks;
    mod crowded;
    mod currencies;
    mod destinations;
    mod disputes;
    mod earnings;
    mod eligibility;
    mod ledger;
    mod messages;
    mod paying;
    mod pooler;
    mod preview;
    mod reconciliation;
    mod recovery;
    mod resume;
    mod schema;
    mod statements;
    mod sync;
    mod taking_back;
    mod webhooks;
    mod withdrawals;
}

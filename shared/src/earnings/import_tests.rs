//! The earnings file, line by line.

use super::*;

const HEAD: &str = "source_id,creator_id,kind,tokens,amount_minor,currency,occurred_at,fee_minor,charge_id,place\n";
const ID: &str = "7f9c2ba4-e88f-4c27-8d4d-1b7b7a1a0001";
const AT: &str = "2026-11-01T12:00:00Z";

fn policy() -> Policy {
    Policy::load().expect("the defaults")
}

fn problem(line: &str) -> String {
    parse(format!("{HEAD}{line}\n").as_bytes(), &policy()).expect_err("a wrong line")[0].to_string()
}

#[test]
fn tokens_and_amounts_are_read_with_their_fees() {
    let file = format!("{HEAD}a,{ID},tip,1,,usd,{AT},,,\nb,{ID},sale,,1000,EUR,{AT},50,ch_1,connected\nc,{ID},tip,1,,,{AT},,,\n");
    let read = parse(file.as_bytes(), &policy()).expect("a good file");
    let frozen: Vec<_> = read.iter().map(|it| it.freeze(&policy()).expect("a worth")).collect();
    assert_eq!((frozen[0].gross_micros, frozen[0].fee_micros), (50_000, 5_000));
    assert_eq!((frozen[1].gross_micros, frozen[1].fee_micros), (10_000_000, 500_000));
    assert_eq!((read[1].place, read[1].charge_id.as_deref()), (Place::Connected, Some("ch_1")));
    assert_eq!(read[2].currency, Currency::USD, "tokens are of the platform's currency");
}

#[test]
fn every_wrong_line_is_named_with_its_reason() {
    for (line, reason) in [
        (format!(",{ID},tip,1,,usd,{AT},,,"), "source_id"),
        (format!("a,nobody,tip,1,,usd,{AT},,,"), "creator_id"),
        (format!("a,{ID},gift,1,,usd,{AT},,,"), "kind"),
        (format!("a,{ID},tip,0,,usd,{AT},,,"), "tokens"),
        (format!("a,{ID},tip,-1,,usd,{AT},,,"), "tokens"),
        (format!("a,{ID},tip,1.5,,usd,{AT},,,"), "tokens"),
        (format!("a,{ID},tip,1e3,,usd,{AT},,,"), "tokens"),
        (format!("a,{ID},tip,1,5,usd,{AT},,,"), "tokens"),
        (format!("a,{ID},tip,,,usd,{AT},,,"), "tokens"),
        (format!("a,{ID},tip,1,,eur,{AT},,,"), "tokens"),
        (format!("a,{ID},tip,9223372036854775807,,usd,{AT},,,"), "tokens"),
        (format!("a,{ID},tip,99999999999999999999,,usd,{AT},,,"), "tokens"),
        (format!("a,{ID},tip,,9223372036854775807,usd,{AT},,,"), "amount_minor"),
        (format!("a,{ID},tip,,100,usd,{AT},101,,"), "amount_minor"),
        (format!("a,{ID},tip,1,,usd,{AT},1,,"), "fee_minor"),
        (format!("a,{ID},tip,,150,isk,{AT},,,"), "amount_minor"),
        (format!("a,{ID},tip,,1050,ugx,{AT},,,"), "amount_minor"),
        (format!("a,{ID},tip,,1001,kwd,{AT},,,"), "amount_minor"),
        (format!("a,{ID},tip,,100,zzz,{AT},,,"), "currency"),
        (format!("a,{ID},tip,,100,,{AT},,,"), "currency"),
        (format!("a,{ID},tip,,100,usd,yesterday,,,"), "occurred_at"),
        (format!("a,{ID},tip,,100,usd,{AT},,,moon"), "place"),
        (format!("a,{ID},tip,,100,usd,{AT},,{},", "c".repeat(201)), "charge_id"),
        (format!("a\u{7},{ID},tip,,100,usd,{AT},,,"), "source_id"),
    ] {
        assert!(problem(&line).starts_with(&format!("line 2: {reason}: ")), "{line}: {}", problem(&line));
    }
    assert_eq!(problem("a,b"), "line 2: has 2 fields where the header has 10");
}

#[test]
fn lines_that_together_are_more_than_the_ledger_can_hold_are_refused_where_they_are() {
    let line = |id: &str, currency: &str| format!("{id},{ID},tip,,900000000000000,{currency},{AT},,,\n");
    let file = format!("{HEAD}{}{}{}", line("a", "usd"), line("b", "eur"), line("c", "usd"));
    let problems = parse(file.as_bytes(), &policy()).expect_err("a sum that wraps");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("line 4: amount_minor: is more than the ledger can hold"), "{}", problems[0]);
}

#[test]
fn a_repeated_source_id_is_fine_with_the_same_content_only() {
    let same = format!("{HEAD}a,{ID},tip,1,,usd,{AT},,,\na,{ID},tip,1,,usd,{AT},,,\n");
    assert_eq!(parse(same.as_bytes(), &policy()).map(|rows| rows.len()), Ok(2));
    let other = format!("{HEAD}a,{ID},tip,1,,usd,{AT},,,\na,{ID},tip,2,,usd,{AT},,,\n");
    let problems = parse(other.as_bytes(), &policy()).expect_err("a contradiction");
    assert_eq!(problems[0].to_string(), "line 3: source_id: a stands on line 2 already with other content");
}

#[test]
fn a_header_that_would_be_misread_is_refused() {
    for (header, reason) in [
        ("source_id,creator_id,kind,tokens,amount_minor,currency", "is missing"),
        ("source_id,creator_id,kind,tokens,amount_minor,currency,occurred_at,fee", "is not known"),
        ("source_id,creator_id,kind,tokens,amount_minor,currency,occurred_at,tokens", "stands twice"),
        ("", "is missing"),
    ] {
        let problems = parse(header.as_bytes(), &policy()).expect_err("a wrong header");
        assert!(problems[0].to_string().contains(reason), "{header}: {}", problems[0]);
    }
}

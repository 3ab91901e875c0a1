use bytes::Bytes;

use super::*;

fn event(body: &str, headers: &[(&str, &str)]) -> Event {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), value.as_bytes().to_vec())).collect();
    Event { headers, body: body.as_bytes().to_vec() }
}

fn sample() -> Batch {
    Batch::from_events(&[event("a", &[("k", "1")]), event("b", &[("k", "2"), ("x", "y")]), event("c", &[("k", "3")])])
}

fn record(name: &str, value: Option<&str>) -> RecordHeader {
    RecordHeader { name: name.into(), value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())) }
}

#[test]
fn rows_and_columns_are_two_views_of_the_same_events() {
    let batch = sample();
    assert_eq!(batch.events()[1], event("b", &[("k", "2"), ("x", "y")]));
    assert_eq!(Batch::from_events(&batch.events()).events(), batch.events());
}

#[test]
fn a_selection_remembers_which_events_it_was_made_of() {
    let batch = sample().select(&[2, 1]).unwrap();
    assert_eq!(batch.events(), [event("c", &[("k", "3")]), event("b", &[("k", "2"), ("x", "y")])]);
    assert_eq!([batch.origin(0), batch.origin(1)], [2, 1]);
    let again = batch.select(&[1]).unwrap();
    assert_eq!(again.origin(0), 1);
    assert!(matches!(sample().select(&[3]), Err(ColumnError::Outside { row: 3, count: 3 })));
}

#[test]
fn a_change_to_a_clone_leaves_the_original_as_it_was() {
    let batch = sample();
    let mut clone = batch.clone();
    clone.set_header("k", Column::Constant("9".into())).unwrap();
    clone.remove_header("x");
    assert_eq!(batch.events()[1], event("b", &[("k", "2"), ("x", "y")]));
    assert_eq!(clone.events()[1], event("b", &[("k", "9")]));
}

#[test]
fn batches_laid_end_to_end_keep_order_and_headers() {
    let batch = sample();
    let joined = Batch::concat(&[batch.slice(1..3), Batch::empty(), batch.slice(0..1)]);
    assert_eq!(
        joined.events(),
        [event("b", &[("k", "2"), ("x", "y")]), event("c", &[("k", "3")]), event("a", &[("k", "1")])]
    );
    assert_eq!(joined.origin(2), 2);
}

#[test]
fn of_a_repeated_record_header_the_last_value_shows_and_all_go_out() {
    let mut batch = Batch::new(["a", "b"].into_iter().collect());
    batch.set_records(RecordHeaders::new([
        vec![record("t", Some("1")), record("t", Some("2"))],
        vec![record("n", None)],
    ]));
    assert_eq!(batch.header("t").unwrap().get(0).as_deref(), Some(&b"2"[..]));
    assert_eq!(batch.header("n").unwrap().get(1).as_deref(), Some(&b""[..]));
    assert_eq!(batch.records().unwrap().untouched(0).count(), 2);
    batch.set_header("t", Column::Constant("3".into())).unwrap();
    assert_eq!(batch.header("t").unwrap().get(1).as_deref(), Some(&b"3"[..]));
    assert_eq!(batch.records().unwrap().untouched(0).count(), 0);
    batch.remove_header("n");
    assert!(batch.header("n").is_none());
    assert_eq!(batch.header_names().len(), 1);
}

#[test]
fn record_headers_follow_their_events_through_select_and_concat() {
    let mut batch = Batch::new(["a", "b"].into_iter().collect());
    batch.set_records(RecordHeaders::new([vec![record("t", Some("1"))], vec![]]));
    let joined = Batch::concat(&[batch.select(&[1, 0]).unwrap(), sample()]);
    assert_eq!(joined.events()[1], event("a", &[("t", "1")]));
    assert_eq!(joined.events()[2], event("a", &[("k", "1")]));
}

#[test]
fn a_header_that_is_a_column_in_one_batch_and_a_record_header_in_another_keeps_both_values() {
    let mut batch = Batch::new(["a"].into_iter().collect());
    batch.set_records(RecordHeaders::new([vec![record("k", Some("9"))]]));
    let joined = Batch::concat(&[batch, sample()]);
    let values: Vec<_> = (0..4).map(|row| joined.header("k").unwrap().get(row).unwrap().into_owned()).collect();
    assert_eq!(values, [b"9", b"1", b"2", b"3"]);
    assert_eq!(joined.records().map(|records| records.untouched(0).count()), Some(0));
}

fn timed(times: &[Option<i64>]) -> Batch {
    let mut batch = Batch::new(times.iter().map(|_| "x").collect());
    batch.set_times(RecordTimes::new(times.iter().copied())).unwrap();
    batch
}

fn timestamps(batch: &Batch) -> Vec<Option<String>> {
    let column = batch.header(TIMESTAMP);
    let text = |row| Some(String::from_utf8(column.as_ref()?.get(row)?.into_owned()).unwrap());
    (0..batch.count()).map(text).collect()
}

#[test]
fn kafkas_times_show_as_a_header_until_somebody_sets_it() {
    let mut batch = timed(&[Some(7), None]);
    assert_eq!(timestamps(&batch), [Some("7".into()), None]);
    assert_eq!(batch.header_names(), ["timestamp".into()]);
    assert_eq!(batch.columns().count(), 0);
    batch.set_header(TIMESTAMP, Column::Constant("9".into())).unwrap();
    assert_eq!(timestamps(&batch), [Some("9".into()), Some("9".into())]);
    let mut batch = timed(&[Some(7)]);
    batch.remove_header(TIMESTAMP);
    assert_eq!(timestamps(&batch), [None]);
}

#[test]
fn a_time_of_the_records_own_shows_in_place_of_kafkas() {
    let mut batch = timed(&[Some(7), Some(8)]);
    batch.set_records(RecordHeaders::new([vec![record(TIMESTAMP, Some("1"))], vec![]]));
    assert_eq!(timestamps(&batch), [Some("1".into()), Some("8".into())]);
    assert_eq!(batch.records().unwrap().untouched(0).count(), 1);
}

#[test]
fn kafkas_times_follow_their_events_and_stay_apart_from_set_ones() {
    let stamped = Batch::from_events(&[event("a", &[(TIMESTAMP, "1")])]);
    let joined = Batch::concat(&[timed(&[Some(7), None, Some(9)]).select(&[2, 0]).unwrap(), stamped, sample()]);
    assert_eq!(timestamps(&joined.slice(0..4)), [Some("9".into()), Some("7".into()), Some("1".into()), None]);
    let columns: Vec<_> = joined.columns().filter(|(name, _)| ***name == *TIMESTAMP).collect();
    assert_eq!(columns.len(), 1);
    assert_eq!(columns[0].1.get(0), None, "only what was set is a column");
}

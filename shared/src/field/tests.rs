//! Tests of the tree of fields: paths, names and privacy.

use super::*;

/// The fields at these paths that are private, each with its privacy.
fn private(fields: &mut FieldTree, paths: &[&str]) -> Vec<String> {
    let mut private = Vec::new();
    for path in paths {
        let field = fields.intern_path(path);
        private.extend(fields.privacy(field).map(|privacy| format!("{path} {privacy:?}")));
    }
    private
}

#[test]
fn a_private_path_covers_other_spellings_and_what_shares_its_column() {
    let mut fields = FieldTree::new(Naming::Segment);
    let before = fields.intern_path("u.E-mail");
    let email = fields.intern_path("u.e_mail");
    let card = fields.intern_path("card_number");
    fields.set_private(&[(email, Privacy::Sha256), (card, Privacy::Drop)]);
    assert_eq!(fields.privacy(before), Some(Privacy::Sha256));
    let covered = [r"u\.eMail", "u_e_mail", "U.e-mail ", r"u\.e\.mail", "u_eMail", r"u\.e_mail\.domain"];
    assert_eq!(private(&mut fields, &covered), covered.map(|path| format!("{path} Sha256")));
    let covered = ["cardNumber", "Card Number", "card.number", r"card\.number"];
    assert_eq!(private(&mut fields, &covered), covered.map(|path| format!("{path} Drop")));
    let others = ["u.mail", "u.e", "e_mail", "u_e_mail_verified", "x.u.e_mail", "card", "card_number_last4"];
    assert_eq!(private(&mut fields, &others), [""; 0]);
    let (inside, other) = (fields.intern_path("Card"), fields.intern_path("cards"));
    assert!(fields.has_private_descendant(inside) && !fields.has_private_descendant(other));
}

#[test]
fn only_what_is_private_or_may_contain_it_is_added_when_a_document_is_redacted() {
    let mut fields = FieldTree::new(Naming::Segment);
    let email = fields.intern_path("who.email");
    fields.set_private(&[(email, Privacy::Drop)]);
    let count = fields.count();
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    for other in ["name", "whose", "email", &*long] {
        assert_eq!(fields.find_private(FieldId::ROOT, other), None, "{other}");
    }
    assert_eq!(fields.count(), count);
    let who = fields.find_private(FieldId::ROOT, "Who").unwrap();
    assert_eq!((fields.privacy(who), fields.has_private_descendant(who)), (None, true));
    assert_eq!(fields.find_private(who, "name"), None);
    let spelled = fields.find_private(who, "EMAIL").unwrap();
    assert_eq!(fields.privacy(spelled), Some(Privacy::Drop));
    let whole_path = fields.find_private(FieldId::ROOT, "who.email").unwrap();
    assert_eq!(fields.privacy(whole_path), Some(Privacy::Drop));
    assert_eq!(fields.count(), count + 3);
    // A member that a document has shown is known, private or not.
    let name = fields.child_after(FieldId::ROOT, None, "name").unwrap();
    assert_eq!(fields.find_private(FieldId::ROOT, "name"), Some(name));
}

#[test]
fn hashes_lose_their_prefix_only_where_they_were_written() {
    let mut fields = FieldTree::new(Naming::Segment);
    fields.set_hash_forms(HashForm::Plain, HashForm::Prefixed);
    assert_eq!(fields.without_hash_prefixes("millstream:sha256:").as_deref(), Some("millstream:sha256:"));
    let hash = fields.hash("a");
    assert_eq!(fields.without_hash_prefixes(&hash).as_deref(), hash.strip_prefix("millstream:sha256:"));
    assert_eq!(fields.without_hash_prefixes(&format!("millstream:sha256: {hash}")), None);
    let failed = fields.count_hashes(|fields| if fields.hash("b").is_empty() { Ok(()) } else { Err(()) });
    assert!(failed.is_err() && fields.without_hash_prefixes(&hash).is_some());
}

#[test]
fn a_field_of_the_format_is_private_only_at_its_own_path() {
    let mut fields = FieldTree::new(Naming::Segment);
    let (name, properties) = (fields.intern_path("name"), fields.intern_path("properties"));
    fields.set_conventional(name);
    fields.set_without_prefix(properties);
    let private_field = fields.intern_path("properties.name");
    fields.set_private(&[(private_field, Privacy::Drop)]);
    let covered = ["Name", "traits.x", r"properties\.name", "Properties.Name", "name"];
    let private = private(&mut fields, &covered);
    assert_eq!(private, ["Name Drop", r"properties\.name Drop", "Properties.Name Drop"]);
    fields.set_private(&[(name, Privacy::Drop)]);
    assert_eq!(fields.privacy(name), Some(Privacy::Drop));
}

#[test]
fn the_stricter_of_two_paths_for_one_column_applies_except_to_their_own_spellings() {
    let mut fields = FieldTree::new(Naming::Exact);
    let (hashed, dropped) = (fields.intern_path("Email"), fields.intern_path("email"));
    fields.set_private(&[(hashed, Privacy::Sha256), (dropped, Privacy::Drop)]);
    assert_eq!(private(&mut fields, &["Email", "email", "EMAIL"]), ["Email Sha256", "email Drop", "EMAIL Drop"]);
}

#[test]
fn names_without_ascii_letters_are_matched_too() {
    let mut fields = FieldTree::new(Naming::Snake);
    let name = fields.intern_path("u.名前");
    fields.set_private(&[(name, Privacy::Drop)]);
    assert_eq!(private(&mut fields, &["U.名前 ", r"u\.名前", "u.名"]).len(), 2);
    let email = fields.intern_path("email");
    fields.set_private(&[(email, Privacy::Drop)]);
    // The column of a member of `名` has no prefix.
    assert_eq!(private(&mut fields, &["u.名.Email", r"名\.email", "名"]).len(), 2);
}

#[test]
fn a_dot_in_a_key_is_not_a_step() {
    let mut fields = FieldTree::new(Naming::Segment);
    let dotted = fields.child(FieldId::ROOT, "a.b");
    let nested = fields.intern_path("a.b");
    assert_ne!(dotted, nested);
    assert_eq!(fields.path(dotted), r"a\.b");
    assert_eq!(fields.intern_path(r"a\.b"), dotted);
    assert_eq!((&*fields.column(dotted), &*fields.column(nested)), ("a_b", "a_b"));
}

#[test]
fn columns_are_named_after_their_paths() {
    let mut fields = FieldTree::new(Naming::Segment);
    let properties = fields.intern_path("properties");
    fields.set_without_prefix(properties);
    let table = fields.intern_table("shop.orders");
    let in_table = fields.intern_path_under(table, "a.b");
    for (path, column) in [
        ("context.device.advertisingId", "context_device_advertising_id"),
        ("properties.homeTeam", "home_team"),
        ("properties", ""),
        ("context.事件", ""),
        // A name without a letter has no column, and those of its members start over.
        ("context.事件.id", "id"),
    ] {
        let field = fields.intern_path(path);
        assert_eq!((&*fields.path(field), &*fields.column(field)), (path, column));
    }
    assert_eq!((&*fields.path(in_table), &*fields.column(in_table)), ("a.b", "a_b"));
    assert_eq!(fields.path(FieldId::ROOT), "");
}

fn exceeded(result: Result<FieldId, Rejection>) -> (String, DocumentLimit) {
    let reason = result.unwrap_err().reason;
    let RejectionReason::LimitExceeded { path, limit } = reason else { panic!("{reason}") };
    (path, limit)
}

#[test]
fn names_and_paths_beyond_the_limits_are_rejected_and_not_kept() {
    let mut fields = FieldTree::new(Naming::Segment);
    let longest = "é".repeat(KEY_BYTES_MAX / 2);
    let parent = fields.child_after(FieldId::ROOT, None, &longest).unwrap();
    let count = fields.count();
    let (path, limit) = exceeded(fields.child_after(FieldId::ROOT, Some(parent), &format!("{longest}x")));
    assert_eq!((path, limit), (format!("{}…", "é".repeat(REPORTED_PATH_BYTES_MAX / 2)), DocumentLimit::KeyBytes));
    let fits = "x".repeat(PATH_BYTES_MAX - KEY_BYTES_MAX - 1);
    let (path, limit) = exceeded(fields.child_after(parent, None, &format!("{}.", &fits[1..])));
    assert_eq!((path.chars().last(), limit), (Some('…'), DocumentLimit::PathBytes));
    assert_eq!(fields.count(), count);
    let longest_path = fields.child_after(parent, None, &fits).unwrap();
    assert_eq!(fields.path(longest_path).len(), PATH_BYTES_MAX);
    // A table's columns have paths of their own.
    let table = fields.intern_table(&"t".repeat(PATH_BYTES_MAX));
    assert!(fields.child_after(table, None, &longest).is_ok());
}

#[test]
fn the_fields_of_each_document_are_counted() {
    let mut fields = FieldTree::new(Naming::Segment);
    for _document in 0..2 {
        fields.begin_document();
        let mut previous = None;
        for _field in 0..FIELDS_PER_DOCUMENT_MAX {
            previous = Some(fields.child_after(FieldId::ROOT, previous, "a").unwrap());
        }
        let (path, limit) = exceeded(fields.child_after(FieldId::ROOT, previous, "one.more"));
        assert_eq!((&*path, limit), (r"one\.more", DocumentLimit::Fields));
    }
    assert_eq!(fields.count(), 2);
}

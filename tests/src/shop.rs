//! The shop and the bank: three DynamoDB tables and one relational table that change under load.
//!
//! The bank's changes are records as AWS DMS writes them: <https://docs.aws.amazon.com/dms/latest/userguide/CHAP_Target.Kinesis.html>.

use std::collections::BTreeMap;

use millstream::clock::now;
use serde_json::{Value, json};

use crate::random::Random;

/// The shop's tables and their keys, the hash key first.
pub const TABLES: [(&str, &[(&str, &str)]); 3] = [
    ("Customers", &[("customerId", "S")]),
    ("Orders", &[("customerId", "S"), ("orderNo", "N")]),
    ("Stock", &[("sku", "S")]),
];

/// A change of one of the shop's tables.
#[derive(Clone, Debug)]
pub enum Change {
    /// An item is put.
    Put(&'static str, Value),
    /// An item is deleted, by its key.
    Delete(&'static str, Value),
}

/// The changes, one after the other; the same for the same seed.
pub struct Shop {
    random: Random,
    customers: u64,
}

impl Shop {
    /// A shop with this many customers.
    pub fn new(seed: u64, customers: u64) -> Self {
        Self { random: Random::new(seed), customers }
    }

    /// The next change.
    pub fn change(&mut self) -> Change {
        match self.random.below(10) {
            0..3 => self.customer(),
            3..8 => self.order(),
            _ => self.stock(),
        }
    }

    fn customer_id(&mut self) -> Value {
        json!({"S": format!("c{:04}", self.random.below(self.customers))})
    }

    fn customer(&mut self) -> Change {
        let id = self.customer_id();
        if self.random.per_mille(100) {
            return Change::Delete("Customers", json!({"customerId": id}));
        }
        let number = self.random.below(1_000);
        let mut item = json!({
            "customerId": id,
            "email": {"S": format!("user{number}@example.org")},
            "tags": {"SS": [format!("t{}", number % 7), "all"]},
            "address": {"M": {"city": {"S": "Wien"}, "zip": {"N": number.to_string()}, "lines": {"L": [{"S": "a \"b\""}, {"NULL": true}]}}},
        });
        // A text, a number, a null, or absent.
        match number % 4 {
            0 => item["tier"] = json!({"S": format!("tier{}", number % 3)}),
            1 => item["tier"] = json!({"N": (number % 3).to_string()}),
            2 => item["tier"] = json!({"NULL": true}),
            _ => {}
        }
        // Attributes that appear gradually.
        item[format!("extra{}", number % 20)] = json!({"B": "AAEC/w=="});
        Change::Put("Customers", item)
    }

    fn order(&mut self) -> Change {
        let key = json!({"customerId": self.customer_id(), "orderNo": {"N": self.random.below(5).to_string()}});
        if self.random.per_mille(150) {
            return Change::Delete("Orders", key);
        }
        let mut item = key;
        let cents = self.random.below(100_000);
        item["total"] = json!({"N": format!("{}.{:02}", cents / 100, cents % 100)});
        item["paid"] = json!({"BOOL": self.random.per_mille(700)});
        item["lines"] = json!({"L": [{"M": {"sku": {"S": "s1"}, "count": {"N": "2"}}}]});
        Change::Put("Orders", item)
    }

    fn stock(&mut self) -> Change {
        let sku = json!({"S": format!("s{:02}", self.random.below(40))});
        let quantity = self.random.below(500).to_string();
        let place = json!({"M": {"warehouse": {"S": format!("w{}", self.random.below(3))}}});
        Change::Put("Stock", json!({"sku": sku, "quantity": {"N": quantity}, "place": place}))
    }
}

/// The bank's accounts, one per customer, and DMS's records of their changes.
pub struct Bank {
    random: Random,
    customers: u64,
    transactions: u64,
    /// The accounts as they are: the balance in cents.
    pub accounts: BTreeMap<u64, i64>,
}

impl Bank {
    /// A bank for the customers of the shop.
    pub fn new(seed: u64, customers: u64) -> Self {
        Self { random: Random::new(seed), customers, transactions: 0, accounts: BTreeMap::new() }
    }

    /// DMS's control record before the rows: the table's columns and its key.
    pub fn table(&self) -> (String, Vec<u8>) {
        let column = |kind: &str, nullable: bool| json!({"type": kind, "nullable": nullable});
        let columns = json!({"id": column("INT64", false), "customer_id": column("STRING", true),
            "holder": column("STRING", true), "balance": column("NUMERIC", true)});
        let metadata = json!({"timestamp": now().to_string(), "record-type": "control", "operation": "create-table",
            "partition-key-type": "task-id", "schema-name": "public", "table-name": "account"});
        let control = json!({"table-def": {"columns": columns, "primary-key": ["id"]}});
        ("task".to_owned(), json!({"control": control, "metadata": metadata}).to_string().into_bytes())
    }

    /// The next record: an account is opened, changed, moved to another number, or closed.
    pub fn change(&mut self) -> (String, Vec<u8>) {
        self.transactions += 1;
        let id = self.random.below(self.customers);
        let Some(balance) = self.accounts.get(&id).copied() else {
            return self.put("insert", id, None);
        };
        match self.random.below(20) {
            0 => {
                self.accounts.remove(&id);
                self.record("delete", id, json!({"id": id}), None)
            }
            1 => {
                self.accounts.remove(&id);
                let moved = self.customers + self.transactions;
                self.accounts.insert(moved, balance);
                let data = self.row(moved, balance);
                self.record("update", moved, data, Some(json!({"id": id})))
            }
            _ => self.put("update", id, Some(balance)),
        }
    }

    fn put(&mut self, operation: &str, id: u64, before: Option<i64>) -> (String, Vec<u8>) {
        let change = i64::try_from(self.random.below(200_000)).unwrap_or(0) - 90_000;
        let balance = before.unwrap_or(0) + change;
        self.accounts.insert(id, balance);
        let data = self.row(id, balance);
        self.record(operation, id, data, None)
    }

    fn row(&mut self, id: u64, cents: i64) -> Value {
        // DMS writes long numbers with an exponent.
        let balance: Value = serde_json::from_str(&format!("{cents}e-2")).unwrap_or_default();
        json!({"id": id, "customer_id": format!("c{:04}", id % self.customers), "holder": "Jane Doe", "balance": balance})
    }

    fn record(&self, operation: &str, id: u64, data: Value, before: Option<Value>) -> (String, Vec<u8>) {
        let moment = now().to_string();
        let metadata = json!({"timestamp": moment, "record-type": "data", "operation": operation,
            "partition-key-type": "schema-table", "schema-name": "public", "table-name": "account",
            "transaction-id": self.transactions, "transaction-record-id": 1, "commit-timestamp": moment});
        let mut document = json!({"data": data, "metadata": metadata});
        if let Some(before) = before {
            document["before-image"] = before;
        }
        (format!("public.account.{id}"), document.to_string().into_bytes())
    }
}

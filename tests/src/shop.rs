//! The shop and the bank: three DynamoDB tables and one relational table that change under load.

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
    /// A shop of so many customers.
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
        // Now a text, now a number, now a null, now nothing.
        match number % 4 {
            0 => item["tier"] = json!({"S": format!("tier{}", number % 3)}),
            1 => item["tier"] = json!({"N": (number % 3).to_string()}),
            2 => item["tier"] = json!({"NULL": true}),
            _ => {}
        }
        // Attributes that appear by and by.
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

//! The address of a queue: what can be known without a request.

use super::{QueueError, Remedy};

/// SQS requires this suffix for the name of a FIFO queue, and accepts the dot nowhere else in a name.
const FIFO_SUFFIX: &str = ".fifo";

/// What an SQS ARN starts with, in every partition.
const ARN_PREFIX: &str = "arn:aws";

/// Checks that the address is the URL of a standard queue.
///
/// # Errors
/// Returns an error that [is final](QueueError::is_unusable) if the address can never work.
pub fn check_address(url: &str) -> Result<(), QueueError> {
    let problem = if url.starts_with(ARN_PREFIX) {
        let advice = url_of_arn(url).map(|url| format!("; set {url}")).unwrap_or_default();
        format!("an ARN was set where the queue's URL is expected{advice}")
    } else if !url.starts_with("https://") && !url.starts_with("http://") {
        "not the URL of a queue; expected https://sqs.REGION.amazonaws.com/ACCOUNT/NAME".to_owned()
    } else if url.ends_with(FIFO_SUFFIX) {
        "a FIFO queue was set where a standard queue is expected; create a standard queue and set its URL".to_owned()
    } else {
        return Ok(());
    };
    Err(QueueError { url: url.to_owned(), reason: problem, remedy: Remedy::OtherQueue })
}

/// The URL of the queue that an ARN names; `None` if it is not the ARN of a queue.
fn url_of_arn(arn: &str) -> Option<String> {
    let parts: Vec<&str> = arn.split(':').collect();
    let ["arn", partition, "sqs", region, account, name] = parts[..] else { return None };
    let domain = if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" };
    Some(format!("https://sqs.{region}.{domain}/{account}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_url_of_a_standard_queue_is_accepted() {
        let reason = |url: &str| check_address(url).map_err(|error| error.to_string());
        for url in ["https://sqs.eu-west-1.amazonaws.com/123456789012/d", "http://127.0.0.1:5000/123456789012/d"] {
            assert_eq!(reason(url), Ok(()));
        }
        assert_eq!(
            reason("arn:aws-cn:sqs:cn-north-1:123456789012:d"),
            Err("queue arn:aws-cn:sqs:cn-north-1:123456789012:d: an ARN was set where the queue's URL is expected; \
                 set https://sqs.cn-north-1.amazonaws.com.cn/123456789012/d"
                .to_owned())
        );
        for (url, problem) in [
            ("https://sqs.eu-west-1.amazonaws.com/123456789012/d.fifo", "a FIFO queue was set"),
            ("arn:aws:sns:eu-west-1:123456789012:d", "an ARN was set where the queue's URL is expected"),
            ("d", "not the URL of a queue"),
        ] {
            assert!(reason(url).unwrap_err().contains(problem), "{url}");
            assert!(check_address(url).unwrap_err().is_unusable());
        }
    }
}

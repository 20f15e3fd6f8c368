//! The board behind a function URL: answers one request at a time. Neither requests nor responses are logged.

use millstream::board::http::{BoardRequest, BoardResponse, UrlResponse};
use millstream::runtime::{App, Failure, Invocation, serve};
use millstream::telemetry;

async fn handle(app: &mut App, event: &[u8], invocation: Invocation) -> Result<UrlResponse, Failure> {
    let request = match BoardRequest::from_event(event) {
        Ok(request) => request,
        Err(error) => return Ok(BoardResponse::text(400, &error.to_string()).into()),
    };
    let (response, outcome) = app.board().await?.respond(&request).await;
    telemetry::log_board_request(outcome, response.status, &invocation.request_id);
    Ok(response.into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    serve(None, |app, event, invocation| Box::pin(handle(app, event, invocation))).await
}

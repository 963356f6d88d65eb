pub(crate) async fn serve(
    _listener: crate::listen::Listener,
    _dispatcher: std::sync::Arc<crate::dispatch::Dispatcher>,
    shutdown: tokio_util::sync::CancellationToken,
) -> Result<(), crate::RunError> {
    shutdown.cancelled().await;
    Ok(())
}

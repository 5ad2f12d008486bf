module "platform" {
  source = "../platform"

  depends_on = [google_container_node_pool.system]
}

module "platform" {
  source                = "../platform"
  device_plugin_version = "0.17.1"

  depends_on = [azurerm_kubernetes_cluster.this]
}

output "kubeconfig" {
  description = "The command that lets kubectl reach the cluster; `kubelogin convert-kubeconfig -l azurecli` after it."
  value       = "az aks get-credentials --resource-group ${azurerm_resource_group.this.name} --name ${azurerm_kubernetes_cluster.this.name}"
}

output "blob_container" {
  description = "Address of the container, for backups and for what speaks Azure's own protocol; it is no `storage.url`."
  value       = "${azurerm_storage_account.this.primary_blob_endpoint}${azurerm_storage_container.models.name}"
}

output "images" {
  description = "Where images are pushed to; `--train-image` and `--serve-image` with a digest."
  value       = { for name in ["train", "serve", "vllm"] : name => "${azurerm_container_registry.this.login_server}/${name}" }
}

output "account_annotations" {
  description = "Annotations of the accounts heliostat and heliostat-head."
  value       = { "azure.workload.identity/client-id" = azurerm_user_assigned_identity.models.client_id }
}

output "region" {
  description = "Where all of it is."
  value       = azurerm_resource_group.this.location
}

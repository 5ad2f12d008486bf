# Workload identity: pods of the accounts are this identity, without a key. It opens the container to Azure's own clients;
# Blob Storage has no S3 interface, which Heliostat's storage speaks (docs/clouds.md).
resource "azurerm_user_assigned_identity" "models" {
  name                = "${var.name}-models"
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
}

resource "azurerm_federated_identity_credential" "models" {
  for_each = toset(["heliostat", "heliostat-head"])

  name                = each.value
  resource_group_name = azurerm_resource_group.this.name
  parent_id           = azurerm_user_assigned_identity.models.id
  audience            = ["api://AzureADTokenExchange"]
  issuer              = azurerm_kubernetes_cluster.this.oidc_issuer_url
  subject             = "system:serviceaccount:${var.namespace}:${each.value}"
}

resource "azurerm_role_assignment" "models" {
  scope                = azurerm_storage_container.models.id
  role_definition_name = "Storage Blob Data Contributor"
  principal_id         = azurerm_user_assigned_identity.models.principal_id
}

# Workload Identity: pods of the accounts are this service account, without a key. It opens the bucket to Google's own
# clients, for backups: Heliostat's storage needs conditional writes of S3, which Cloud Storage has not (docs/clouds.md).
resource "google_service_account" "models" {
  account_id   = "${var.name}-models"
  display_name = "Pods of ${var.name}"

  depends_on = [google_project_service.this]
}

resource "google_service_account_iam_member" "models" {
  for_each = toset(["heliostat", "heliostat-head"])

  service_account_id = google_service_account.models.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.namespace}/${each.value}]"

  depends_on = [google_container_cluster.this]
}

resource "google_storage_bucket_iam_member" "models" {
  for_each = toset(["roles/storage.objectUser", "roles/storage.legacyBucketReader"])

  bucket = google_storage_bucket.this.name
  role   = each.value
  member = "serviceAccount:${google_service_account.models.email}"
}

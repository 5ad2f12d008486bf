output "kubeconfig" {
  description = "The command that lets kubectl reach the cluster."
  value       = "gcloud container clusters get-credentials ${google_container_cluster.this.name} --project ${var.project} --region ${var.region}"
}

output "bucket" {
  description = "The bucket, for backups and for what speaks Google's own protocol; it is no `storage.url`."
  value       = google_storage_bucket.this.url
}

output "images" {
  description = "Where images are pushed to; `--train-image` and `--serve-image` with a digest."
  value       = { for name in ["train", "serve", "vllm"] : name => "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.this.repository_id}/${name}" }
}

output "account_annotations" {
  description = "Annotations of the accounts heliostat and heliostat-head."
  value       = { "iam.gke.io/gcp-service-account" = google_service_account.models.email }
}

output "region" {
  description = "Where all of it is."
  value       = var.region
}

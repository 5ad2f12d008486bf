output "kubeconfig" {
  description = "The command that lets kubectl reach the cluster."
  value       = "gcloud container clusters get-credentials ${google_container_cluster.this.name} --project ${var.project} --region ${var.region}"
}

output "storage_url" {
  description = "`storage.url` of the spec."
  value       = "s3://${google_storage_bucket.this.name}"
}

output "environment" {
  description = "Settings of the pods beside it; the keys are an HMAC key of the service account, in the Secret heliostat-s3."
  value       = { AWS_ENDPOINT_URL_S3 = "https://storage.googleapis.com", AWS_REGION = var.region }
}

output "service_account" {
  description = "Whose HMAC key opens the bucket: `gcloud storage hmac create` makes one."
  value       = google_service_account.models.email
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

output "kubeconfig" {
  description = "The command that lets kubectl reach the cluster."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${aws_eks_cluster.this.name}"
}

output "storage_url" {
  description = "`storage.url` of the spec."
  value       = "s3://${aws_s3_bucket.this.bucket}"
}

output "environment" {
  description = "Settings of the pods beside it."
  value       = { AWS_REGION = var.region }
}

output "images" {
  description = "Where images are pushed to; `--train-image` and `--serve-image` with a digest."
  value       = { for name, repository in aws_ecr_repository.this : name => repository.repository_url }
}

output "account_annotations" {
  description = "Annotations of the accounts heliostat and heliostat-head."
  value       = { "eks.amazonaws.com/role-arn" = aws_iam_role.pods["models"].arn }
}

output "region" {
  description = "Where all of it is."
  value       = var.region
}

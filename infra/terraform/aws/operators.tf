module "platform" {
  source                = "../platform"
  device_plugin_version = "0.17.1"

  depends_on = [aws_eks_node_group.system, aws_eks_addon.coredns, aws_eks_addon.ebs_csi]
}

# Spot pools first; where one gives no node within five minutes, those on demand.
resource "helm_release" "autoscaler" {
  name       = "cluster-autoscaler"
  repository = "https://kubernetes.github.io/autoscaler"
  chart      = "cluster-autoscaler"
  version    = var.cluster_autoscaler_chart_version
  namespace  = "kube-system"
  atomic     = true
  values = [yamlencode({
    fullnameOverride = "cluster-autoscaler"
    cloudProvider    = "aws"
    awsRegion        = var.region
    autoDiscovery    = { clusterName = var.name }
    rbac = {
      serviceAccount = {
        name        = "cluster-autoscaler"
        annotations = { "eks.amazonaws.com/role-arn" = aws_iam_role.pods["autoscaler"].arn }
      }
    }
    extraArgs = {
      expander                = "priority"
      max-node-provision-time = "5m"
    }
    expanderPriorities = yamlencode({
      "20" = [for name, pool in var.gpu_pools : "eks-${name}-.*" if pool.spot]
      "10" = [".*"]
    })
  })]

  depends_on = [aws_eks_node_group.system, aws_eks_addon.coredns]
}
